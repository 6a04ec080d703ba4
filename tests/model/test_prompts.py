"""How a model is asked: ours by its short prompt, others by their template or by R1-Zero's."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trl
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from r1_mini.errors import UserError
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.model.templates import R1_SYSTEM, give_template
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.train.grpo import Trainer

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"

DATED = "{{ strftime_now('%d %b %Y, %-d/%m %H:%M') }} {{ messages[-1].content }}"
THINKING = (Path(trl.__file__).parent / "chat_templates" / "qwen3_training.jinja").read_text(encoding="utf-8")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}{{ messages[0].content }}"


def letters(template=None, begins=False):
    """A tokenizer of single letters, with a template or without, that puts a first token before a text or does not."""
    core = make_tokenizer().backend_tokenizer
    core = type(core).from_str(core.to_str().replace("Assistant:", "Model:"))
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", bos_token="<bos>")
    made.chat_template = template
    if begins:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", made.bos_token_id)]
        )
    return made


def asked(tokenizer, style="auto", question="1+1+1"):
    give_template(tokenizer, style, "model")
    return prompt_for(tokenizer, question)


@pytest.mark.parametrize(
    ("template", "style", "prompt"),
    [
        (CHAT, "auto", f"[system]{R1_SYSTEM}[user]1+1+1[assistant]"),
        (None, "auto", f"{R1_SYSTEM} User: 1+1+1. Assistant:"),
        (CHAT, "base", f"{R1_SYSTEM} User: 1+1+1. Assistant:"),
        (NO_SYSTEM, "chat", f"{R1_SYSTEM}\n\n1+1+1"),
        (DATED, "auto", "26 Jul 2024, 26/07 00:00 1+1+1"),
    ],
)
def test_a_model_is_asked_through_its_template_or_as_r1_zero_was(template, style, prompt):
    assert asked(letters(template), style) == prompt


def test_variables_of_a_template_are_fixed_in_it_wherever_it_is_loaded_until_others_replace_them(tmp_path):
    turns = [{"role": "system", "content": R1_SYSTEM}, {"role": "user", "content": "1+1+1"}]
    tokenizer = letters(THINKING)
    plain = partial(tokenizer.apply_chat_template, turns, tokenize=False, add_generation_prompt=True)
    on, off = plain(enable_thinking=True), plain(enable_thinking=False)
    assert off == on + "<think>\n\n</think>\n\n"
    for style, prompt in (({"enable_thinking": False}, off), ("auto", off), ({"enable_thinking": True}, on)):
        assert asked(tokenizer, style) == prompt
        tokenizer.save_pretrained(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == prompt


OWN = "{% if messages[0].role != 'system' %}[system]I am Own.{% endif %}" + CHAT + "\n"
"""A template with a system message of its own, where it is given none."""


@pytest.mark.parametrize(
    ("template", "begins", "prompt"),
    [
        (OWN, False, "[user]1+1+1[assistant]"),
        ("{{ bos_token }}" + OWN, True, "<bos>[user]1+1+1[assistant]"),
        (CHAT, False, "[user]1+1+1[assistant]"),
        (NO_SYSTEM, False, "1+1+1"),
    ],
)
def test_without_a_system_message_none_is_sent_not_even_the_templates_own(tmp_path, template, begins, prompt):
    tokenizer = letters(template, begins)
    for style in ({"system": None}, "auto", "chat"):  # saved as it was trained, it is asked so by default
        assert asked(tokenizer, style) == prompt
        tokenizer.save_pretrained(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    turns = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
    if template == OWN:  # whoever sends another one, or goes on talking, gets what the model's own template writes
        for several in (turns, turns[:2]):
            assert tokenizer.apply_chat_template(several, tokenize=False) == letters(OWN).apply_chat_template(
                several, tokenize=False
            )
        assert tokenizer.apply_chat_template(turns[1:], tokenize=False) == "[user]u[assistant]a[user]u"


def test_a_system_message_of_ones_own_is_kept_until_another_replaces_it_beside_variables(tmp_path):
    tokenizer = letters("{% if a %}A{% endif %}" + OWN)
    text = "Say 'no', or \"it's\" {{ a }}\nñ"
    assert asked(tokenizer, {"system": text, "a": True}) == f"A[system]{text}[user]1+1+1[assistant]"
    assert asked(tokenizer, {"a": False}) == f"[system]{text}[user]1+1+1[assistant]"
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert asked(tokenizer) == f"[system]{text}[user]1+1+1[assistant]"
    assert asked(tokenizer, {"system": None}) == "[user]1+1+1[assistant]"
    assert asked(tokenizer, {"a": True}) == "A[user]1+1+1[assistant]"
    assert asked(tokenizer, {"system": "Be brief."}) == "A[system]Be brief.[user]1+1+1[assistant]"
    assert asked(letters(NO_SYSTEM), {"system": text}) == f"{text}\n\n1+1+1"


def test_the_line_that_fixes_variables_prints_nothing():
    turns = [{"role": "user", "content": "1+1+1"}]
    for begin in ("\n  {% if a %}x{% endif %}", "  {%- if a %}x{% endif %}\n\n", "  {% if a %}\n x{% endif %}"):
        body = begin + "{{ messages[-1].content }}"
        rendered = letters(body).apply_chat_template(turns, tokenize=False, a=True)
        assert asked(letters(body), {"a": True}) == rendered


FAILS = "{{ 1 // 0 if '9' in messages[-1].content }}{{ messages[-1].content }}"


@pytest.mark.parametrize(
    ("template", "style", "line"),
    [
        (CHAT, {"m": 1}, "^model: the chat template has no variable 'm'; "),
        (CHAT, {"messages": 1}, "^model: the chat template has no variable 'messages'; "),
        (THINKING, {"enable_thinkin": False}, "no variable 'enable_thinkin'; did you mean 'enable_thinking'"),
        (FAILS, "auto", r"^the chat template fails \(.* by zero\); correct it, or use"),
        (
            make_tokenizer().chat_template,
            {"system": "Be brief."},
            "^model: the chat template has no place for a system",
        ),
        (None, "chat", r"^model: the chat template is missing, .*; correct it, or use the prompt style"),
    ],
)
def test_a_template_without_the_variable_or_that_fails_on_a_question_is_one_line(template, style, line):
    with pytest.raises(UserError, match=line):
        asked(letters(template), style, "9")


TRLS = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


@pytest.mark.parametrize("path", TRLS, ids=lambda path: path.stem)
def test_templates_of_well_known_models_are_taken_and_of_those_for_images_refused(path):
    tokenizer = letters(path.read_text(encoding="utf-8"))
    if path.stem.removesuffix("_training") in ("idefics3", "llava_next", "smolvlm"):
        with pytest.raises(UserError, match="leaves the question out"):
            asked(tokenizer)
    else:
        assert "1+1+1" in asked(tokenizer)


def test_what_is_saved_asks_alike_in_any_library(tmp_path):
    tokenizer = letters(CHAT)
    text = asked(tokenizer, "base")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for end in "?.!":  # a question that ends by itself gets no full stop
        assert prompt_for(loaded, f"How many{end}").endswith(f"User: How many{end} Assistant:")
    turns = [{"role": "user", "content": "1+1+1"}]
    assert loaded.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == text
    answered = [*turns, {"role": "assistant", "content": "<answer>3</answer>"}]
    assert loaded.apply_chat_template(answered, tokenize=False) == text + "<answer>3</answer><eos>"


@pytest.mark.parametrize("template", [None, "{{ bos_token }}" + CHAT])
def test_a_first_token_stands_there_once_by_our_sampler_and_by_trls(template):
    tokenizer = letters(template, begins=True)
    text = asked(tokenizer)
    (ids,) = encode(tokenizer, [text])
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    by_trl, _, _ = Trainer._tokenize_prompts(SimpleNamespace(processing_class=tokenizer), [text])
    assert by_trl == [ids]
