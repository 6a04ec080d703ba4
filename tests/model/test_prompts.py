"""How a model is asked: ours by its short prompt, others by their template or by R1-Zero's."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import trl
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from r1_mini.errors import UserError
from r1_mini.model.prompts import R1_SYSTEM, encode, give_template, prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.train.grpo import Trainer

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


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


@pytest.mark.parametrize("style", ["auto", "chat"])
def test_our_own_tokenizer_has_a_short_prompt_without_the_instruction(style):
    assert asked(make_tokenizer(), style) == "User: 1+1+1\nAssistant:"


def test_a_chat_model_is_asked_through_its_template_with_the_instruction_as_system_prompt():
    assert asked(letters(CHAT)) == f"[system]{R1_SYSTEM}[user]1+1+1[assistant]"


def test_a_model_without_a_template_is_asked_as_r1_zero_was():
    assert asked(letters()) == f"{R1_SYSTEM} User: 1+1+1. Assistant:"


def test_a_base_model_with_a_chat_template_is_asked_as_r1_zero_was_if_the_recipe_says_so():
    assert asked(letters(CHAT), "base") == f"{R1_SYSTEM} User: 1+1+1. Assistant:"


@pytest.mark.parametrize("end", ["?", ".", "!"])
def test_a_question_that_ends_by_itself_gets_no_full_stop(end):
    assert asked(letters(), question="How many" + end).endswith(f"User: How many{end} Assistant:")


def test_chat_without_a_template_is_refused():
    with pytest.raises(
        UserError, match=r"^model: the chat template is missing; correct it, or use the prompt style base"
    ):
        give_template(letters(), "chat", "model")


CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
THINKS = CHATML.replace("<assistant>{% endif", "<assistant><think>{% endif")
LLAMA_2 = "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} {% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
NO_ANSWERS = "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize("template", [CHATML, THINKS, LLAMA_2, NO_ANSWERS])
def test_a_template_that_gives_the_turn_in_whatever_way_is_taken(template):
    assert "1+1+1" in asked(letters(template))


TRLS = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


@pytest.mark.parametrize("path", TRLS, ids=lambda path: path.stem)
def test_templates_of_well_known_models_are_taken_and_of_those_for_images_refused(path):
    tokenizer = letters(path.read_text(encoding="utf-8"))
    if path.stem.removesuffix("_training") in ("idefics3", "llava_next", "smolvlm"):
        with pytest.raises(UserError, match="leaves the question out"):
            asked(tokenizer)
    else:
        assert "1+1+1" in asked(tokenizer)


def test_a_template_that_never_says_whose_turn_it_is_is_refused():
    mute = CHATML[: CHATML.index("{% if add")]
    with pytest.raises(UserError, match=r"^model: the chat template has no generation prompt.*the prompt style base"):
        give_template(letters(mute), "auto", "model")
    assert asked(letters(mute), "base").endswith("Assistant:")


def test_a_template_without_a_system_role_gets_the_instruction_in_the_question():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0].content }}"
    assert asked(letters(refuses)) == f"{R1_SYSTEM}\n\n1+1+1"


def test_what_is_saved_asks_alike_in_any_library(tmp_path):
    tokenizer = letters(CHAT)
    text = asked(tokenizer, "base")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
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
