"""KL at tokens, their roles, and two models that write together."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from eval.inspect import tokens
from eval.inspect.case import AFTER, BEFORE, Case, Marks, Network
from eval.inspect.mixture import Mixture, Places, at_random, at_voice, divergence, mixtures, over, written
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.problem import Problem

PROBLEMS = [
    Problem(family="sum", question=f"{a}+2", answer=str(a + 2), difficulty={"depth": 1}, key=f"{a}+2", formula=f"{a}+2")
    for a in range(10, 50)
]
TOKENIZER = make_tokenizer()


def network(seed):
    model = make_model(TOKENIZER, hidden_size=16, layers=2, heads=2, intermediate_size=32, seed=seed).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
        model.lm_head.weight[TOKENIZER.convert_tokens_to_ids("<think>")] *= 3  # so that there are voices to choose
    return Network(model, TOKENIZER)


@pytest.fixture(scope="module")
def case():
    return Case({BEFORE: network(0), AFTER: network(1)}, PROBLEMS, [], max_tokens=24, share=0.1)


def mixed(case, rule, keeps_after, problems=PROBLEMS):
    """Tokens of the completions of a mixture, and the mixture."""
    begin = case.before.ids("<think>")
    mixture = Mixture(case.before.model, case.after.model, rule, keeps_after=keeps_after, begin=begin, seed=0)
    return [done.tokens for done in written(case, Network(mixture, TOKENIZER), problems)], mixture


def alone(case, name):
    return [done.tokens for done in written(case, case.networks[name], PROBLEMS)]


def test_divergence_is_kl_in_nats_from_the_first_to_the_second():
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert float(divergence(p, q)) == pytest.approx(0.143841, abs=1e-6)  # .5 ln 2 + .5 ln (2/3)
    assert float(divergence(q, p)) == pytest.approx(0.130812, abs=1e-6)  # .25 ln .5 + .75 ln 1.5
    assert float(divergence(p + 3, p)) == 0


def test_divergences_of_many_completions_are_those_of_each_alone(case):
    prompts = case.before.prompts(PROBLEMS[:8])
    done = [list(range(10, 10 + n)) for n in (1, 7, 3, 3, 12, 1, 2, 5)]
    found = tokens.divergences(case.after.model, case.before.model, prompts, done)
    for prompt, each, kl in zip(prompts, done, found, strict=True):
        ids = torch.tensor([prompt + each])
        with torch.no_grad():
            both = [network.model(ids).logits[0, len(prompt) - 1 : -1] for network in (case.after, case.before)]
        assert kl == pytest.approx(divergence(*both).tolist(), abs=1e-4)
    assert tokens.divergences(case.after.model, case.after.model, prompts, done)[4] == [0.0] * 12


@pytest.mark.parametrize("keeps_after", [False, True])
def test_threshold_0_is_the_one_model_and_infinity_the_other(case, keeps_after):
    kept, other = (AFTER, BEFORE) if keeps_after else (BEFORE, AFTER)
    assert alone(case, kept) != alone(case, other)
    found, mixture = mixed(case, over(float("inf")), keeps_after)
    assert found == alone(case, kept)
    assert (mixture.asked, mixture.exchanged) == (sum(map(len, found)), 0)
    found, mixture = mixed(case, over(0.0), keeps_after)
    assert found == alone(case, other)
    assert mixture.exchanged == mixture.asked == sum(map(len, found))


def test_rules_see_the_kl_from_after_to_before_at_each_token(case):
    """What a mixture of `before` alone sees is what teacher forcing gives for its completions."""
    seen = []

    def look(places):
        seen.extend(places.kl_R.tolist())
        return torch.zeros_like(places.voice_R)

    for keeps_after in (False, True):
        seen.clear()
        (found,), _ = mixed(case, look, keeps_after, PROBLEMS[:1])
        (kl,) = tokens.divergences(case.after.model, case.before.model, case.before.prompts(PROBLEMS[:1]), [found])
        assert seen == pytest.approx(kl, abs=1e-4)


def test_voice_only_exchanges_the_token_after_the_mark(case):
    found, mixture = mixed(case, at_voice, True)
    begin = TOKENIZER.convert_tokens_to_ids("<think>")
    assert 0 < mixture.exchanged == sum(each[:-1].count(begin) for each in found) < mixture.asked
    for mine, theirs in zip(found, alone(case, AFTER), strict=True):
        first = theirs.index(begin) if begin in theirs else len(theirs)
        assert mine[: first + 1] == theirs[: first + 1]  # nothing differs before the mark
    assert found != alone(case, AFTER)


def test_a_mark_of_several_tokens_is_seen_at_its_end(case):
    mixture = Mixture(case.before.model, case.after.model, at_voice, keeps_after=True, begin=[7, 8], seed=0)
    text_RT = torch.tensor([[1, 7, 8, 9], [7, 8, 8, 7], [8, 0, 0, 0]])
    places = mixture._places(text_RT, torch.tensor([2, 2, 0]), torch.zeros(3))
    assert places.voice_R.tolist() == [True, False, False]


def test_random_places_are_a_share_of_all_and_the_same_in_another_batch(case):
    found, mixture = mixed(case, at_random(0.3), True)
    assert mixture.exchanged / mixture.asked == pytest.approx(0.3, abs=0.06)
    assert mixed(case, at_random(0.3), True, PROBLEMS[5:6])[0] == found[5:6]


def test_random_number_depends_on_the_text_so_far_alone(case):
    mixture = Mixture(case.before.model, case.after.model, at_voice, keeps_after=True, begin=[7], seed=0)
    text_RT = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9], [2, 1, 3, 4]])
    one, two, three = mixture._places(text_RT, torch.tensor([2, 2, 2]), torch.zeros(3)).random_R.tolist()
    assert one == two != three


def test_mixture_of_models_with_layer_types_and_eager_attention():
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(TOKENIZER), **shape, num_key_value_heads=1, attn_implementation="eager")
    both = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        both.append(Network(Qwen2ForCausalLM(deepcopy(config)).eval(), TOKENIZER))
    case = Case(dict(zip((BEFORE, AFTER), both, strict=True)), PROBLEMS, [], max_tokens=8)
    assert mixed(case, over(0.0), False)[0] == alone(case, AFTER) != alone(case, BEFORE)


def test_rules():
    places = Places(torch.tensor([0.05, 0.1, 2.0]), torch.tensor([0.1, 0.3, 0.2]), torch.tensor([True, False, False]))
    assert over(0.1)(places).tolist() == [False, True, True]
    assert at_random(0.2)(places).tolist() == [True, False, False]
    assert at_voice(places).tolist() == [True, False, False]


def roles(text, exact=True):
    return tokens.roles_of([TOKENIZER.decode([i]) for i in TOKENIZER(text)["input_ids"]] + [""], Marks(), exact)


def test_roles_of_a_chain_are_those_of_its_parts():
    #                                           <think>, 7 is the voice
    assert roles("<think>7+12=19\n19-3=16</think><answer>16</answer>") == "fvo22=rdn11o2=rd" + "e" + "aaaa" + "f"
    assert roles("<think></think><answer>16</answer>") == "fv" + "aaaa" + "f"
    assert roles("<think>1-12=-11\nwait\n5") == "fvo22=rrdnwn1f"
    assert roles("16") == "fff"
    assert roles("<think>7+12=19</think>4", exact=False) == "fv" + "c" * 6 + "eaf"
    assert roles("<think>9\n7+1=8+1\nx") == "fvn1o2=rccncf"


def test_a_piece_of_several_characters_has_the_role_of_its_first():
    pieces = ["<th", "ink>", "12", "+", "7", "=1", "9", "\n", " 19", "-3", "</", "think>", "<answer>19", ""]
    assert tokens.roles_of(pieces, Marks(), True) == "ffvo2=dncceeaf"
    assert tokens.roles_of(["[T]", " so", " 4", "[/T]", " 4", ""], Marks("[T]", "[/T]"), False) == "fvceaf"


def test_table_says_where_the_kl_is():
    def row(kl, roles="fvra", pieces=("<think>", "4", "4", " ")):
        return {"network": "after", "key": "k", "pieces": pieces, "roles": roles, "kl": kl}

    rows = [row([0.0, 1.0, 0.2, 0.0])] * 5 + [row([0.0, 0.5, 0.05, 0.05])] * 5
    (found,) = tokens.table(rows)["networks"]
    assert (found["network"], found["n"], found["tokens"]) == ("after", 10, 40)
    assert found["per_completion"]["estimate"] == 0.9  # (1.2 + .6) / 2
    assert found["per_token"]["estimate"] == 0.225
    assert found["per_token"]["low"] < 0.225 < found["per_token"]["high"]
    assert found["over"] == {"0.1": 15 / 40, "0.01": 25 / 40}
    assert found["top"]["of_kl"]["estimate"] == pytest.approx(2 / 9, abs=1e-6)  # 2 of 40 tokens, 1 nat each, of 9
    of_kl = found["roles"][0]["of_kl"]
    assert of_kl["estimate"] == pytest.approx(7.5 / 9, abs=1e-6)
    assert 0.833333 <= of_kl["low"] <= of_kl["estimate"] <= of_kl["high"] <= 0.833334  # it is 5/6 of all completions
    voice = {"n": 10, "mean": 0.75, "of_kl": of_kl, "over": 1.0}
    assert found["roles"][0] == {"role": "voice", **voice}
    result = found["roles"][1]["of_kl"]  # 1.25 of 9
    assert result["estimate"] == pytest.approx(1.25 / 9, abs=1e-6)
    assert result["low"] < 1.25 / 9 < result["high"]
    assert [each["role"] for each in found["roles"]] == ["voice", "result, first digit", "answer", "frame"]
    assert found["pieces"][0] == {"piece": "4", "role": "voice", **voice}
    assert found["pieces"][2]["piece"] == "␣"


def test_a_network_that_equals_the_one_before_has_shares_of_nothing(case):
    same = replace(case, networks={BEFORE: case.before, AFTER: case.before})
    rows = [{"network": AFTER, **row} for row in tokens.compared(same, case.before, PROBLEMS[:8])]
    (found,) = tokens.table(rows)["networks"]
    zero = {"estimate": 0.0, "low": 0.0, "high": 0.0}
    assert found["per_token"] == found["top"]["of_kl"] == zero
    assert all(role["of_kl"] == zero for role in found["roles"])


def test_table_says_what_a_mixture_recovers():
    def row(keeps, exchanged, right, places=0.1, **like):
        return {"keeps": keeps, "exchanged": exchanged, **like, "places": places, "right": right}

    rows = [
        row("after", "nothing", "1" * 20, 0.0),
        row("after", "KL > 1", "0" * 15 + "1" * 5),
        row("after", "random", "1" * 10 + "0" * 10, like="KL > 1"),
        row("before", "nothing", "0" * 20, 0.0),
    ]
    found = tokens.table(rows)["mixtures"]
    assert [each["recovered"]["estimate"] for each in found] == [1.0, 0.25, 0.5, 0.0]
    assert found[2]["like"] == "KL > 1" and found[1]["places"] == 0.1


def test_rows_are_of_every_network_and_every_mixture(case):
    rows = list(tokens.measure(case))
    of_networks = [row for row in rows if "network" in row]
    assert len(of_networks) == 40 and {row["network"] for row in of_networks} == {AFTER}
    assert all(len(row["kl"]) == len(row["roles"]) == len(row["pieces"]) for row in of_networks)
    found = [(row["keeps"], row["exchanged"], row.get("like")) for row in rows if "exchanged" in row]
    assert found[:4] == [
        (AFTER, "nothing", None), (AFTER, "voice", None), (AFTER, "KL > 1", None), (AFTER, "random", "KL > 1"),
    ]  # fmt: skip
    assert found[-1] == (BEFORE, "random", "KL > 0.02") and len(found) == 16
    assert list(mixtures(case, PROBLEMS)) == [
        {key: value for key, value in row.items() if key != "part"} for row in rows if "exchanged" in row
    ]
    tokens.table(rows)
