"""Packed batches against rows of their own."""

import torch
from transformers import LlamaForCausalLM

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.train.packing import IGNORED, pack


def example(*ids, prompt=1):
    return {"input_ids": list(ids), "labels": [IGNORED] * prompt + list(ids[prompt:])}


def test_examples_share_rows_first_fit_longest_first_and_keep_positions_of_their_own():
    packed = pack([example(5, 6), example(7, 8, 9, 10, 11), example(12, 13, 14), example(15)], pad=0)
    assert packed["input_ids"].tolist() == [[7, 8, 9, 10, 11], [12, 13, 14, 5, 6], [15, 0, 0, 0, 0]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]
    assert packed["labels"].tolist() == [
        [IGNORED, 8, 9, 10, 11],
        [IGNORED, 13, 14, IGNORED, 6],
        [IGNORED] * 5,
    ]


def test_the_first_token_of_an_example_is_not_predicted_from_the_one_packed_before_it():
    packed = pack(
        [example(5, 6, 7, prompt=0), example(8, 9, 10, 11, 12, 13, prompt=0), example(3, 4, 5, prompt=0)], pad=0
    )
    assert packed["labels"].tolist() == [[IGNORED, 9, 10, 11, 12, 13], [IGNORED, 6, 7, IGNORED, 4, 5]]


def test_the_loss_and_its_gradient_are_those_of_examples_in_rows_of_their_own():
    model = make_model(make_tokenizer(), hidden_size=32, layers=2, heads=2, intermediate_size=None, seed=0)
    generator = torch.Generator().manual_seed(0)
    sizes = [9, 4, 17, 6, 11, 5, 3]
    examples = [example(*torch.randint(3, 25, (n,), generator=generator).tolist(), prompt=2) for n in sizes]
    packed = pack(examples, pad=0)
    assert packed["input_ids"].shape[0] < len(examples)

    def gradients(total, count):
        model.zero_grad()
        (total / count).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    def summed(model: LlamaForCausalLM, ids, labels, **positions):
        logits = model(input_ids=ids, use_cache=False, **positions).logits[:, :-1]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )

    count = sum(n - 2 for n in sizes)
    alone = [summed(model, *(torch.tensor([e[name]]) for name in ("input_ids", "labels"))) for e in examples]
    apart = gradients(sum(alone), count)
    whole = summed(model, packed["input_ids"], packed["labels"], position_ids=packed["position_ids"])
    assert torch.allclose(whole, sum(alone), rtol=1e-5)
    together = gradients(whole, count)
    assert (apart - together).norm() < 1e-5 * apart.norm()
