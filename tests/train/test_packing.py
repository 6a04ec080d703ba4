"""Packed batches against rows of their own."""

import torch

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.train.packing import IGNORED, pack


def example(*ids, prompt=1):
    return {"input_ids": list(ids), "labels": [IGNORED] * prompt + list(ids[prompt:])}


def test_examples_share_rows_first_fit_longest_first_and_keep_positions_of_their_own():
    """The first token of an example is never predicted, even where it is no prompt."""
    packed = pack([example(5, 6, prompt=0), example(7, 8, 9, 10, 11), example(12, 13, 14), example(15)], pad=0)
    assert packed["input_ids"].tolist() == [[7, 8, 9, 10, 11], [12, 13, 14, 5, 6], [15, 0, 0, 0, 0]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]
    labels = [[IGNORED, 8, 9, 10, 11], [IGNORED, 13, 14, IGNORED, 6], [IGNORED] * 5]
    assert packed["labels"].tolist() == labels


def test_the_loss_and_its_gradient_are_those_of_examples_in_rows_of_their_own():
    model = make_model(make_tokenizer(), hidden_size=32, layers=2, heads=2, intermediate_size=None, seed=0)
    generator = torch.Generator().manual_seed(0)
    sizes = [9, 4, 17, 6, 11, 5, 3]
    examples = [example(*torch.randint(3, 25, (n,), generator=generator).tolist(), prompt=2) for n in sizes]
    packed = pack(examples, pad=0)
    assert packed["input_ids"].shape[0] < len(examples)

    def loss_and_gradient(batches):
        """The mean over all labels of what is read batch by batch."""
        summed = torch.zeros(())
        for fields in batches:
            labels = fields.pop("labels")[:, 1:].flatten()
            logits = model(**fields, use_cache=False).logits[:, :-1].flatten(0, 1)
            summed += torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        loss = summed / sum(n - 2 for n in sizes)
        return loss, torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, [*model.parameters()])])

    apart, expected = loss_and_gradient({name: torch.tensor([ids]) for name, ids in each.items()} for each in examples)
    together, found = loss_and_gradient([packed])
    assert torch.allclose(together, apart, rtol=1e-5)
    assert (found - expected).norm() < 1e-5 * expected.norm()
