"""What is secret is refused and never quoted; what is hostile is shown as text."""

import pytest

from r1_mini import cli
from r1_mini.text import cut, masked, secrets
from tests.conftest import SECRET, leaks

HUB = "hf_" + "a1" * 17


@pytest.mark.parametrize(
    "override",
    [
        f"grpo.trainer.hub_token={SECRET}",
        f"base.trainer.hub_token={SECRET}",
        f"grpo.trainer.hub_tokn={HUB}",
        f"grpo.trainer.model_init_kwargs={{token: {SECRET}}}",
        f"grpo.trainer.model_init_kwargs={{use_auth_token: {SECRET}}}",
        f"grpo.trainer.model_init_kwargs={{token: {SECRET}",
        f"grpo.trainer.generation_kwargs.api_key={SECRET}",
        f"grpo.trainer.chat_template_kwargs={{password: {SECRET}}}",
        f"grpo.trainer.lr_scheduler_kwargs={{a: [{{secret: {SECRET}}}]}}",
        f"grpo.trainer.vllm_server_base_url=http://me:{SECRET}@host:8000",
        f"grpo.trainer.report_to=[{{wandb: {{api_key: {SECRET}}}}}]",
        f"grpo.trainer.wandb_api_key=[{SECRET}]",
        f"grpo.trainer.generation_kwargs={{headers: {{Authorization: Bearer {SECRET}}}}}",
        f"grpo.trainer.push_to_hub_token={SECRET}",
        f"prompt={{hubToken: {SECRET}}}",
        "prompt={password: 11235813}",
        f"grpo.trainer.run_name={HUB}",
        f"model=sk-proj-{HUB[3:]}-{SECRET}",
        f"model=me/model?access_token={SECRET}",
        f"grpo.trainer.project=github_pat_{SECRET * 2}",
        f"problems=[{{dataset: me/data, token: {SECRET}}}]",
        f"problems=[{{jsonl: 's3://key:{SECRET}@bucket/a.jsonl'}}]",
        f"problems=[{{jsonl: 'https://host/a.jsonl?sig={SECRET}'}}]",
        f"model=https://{SECRET}@huggingface.co/me/model",
        f"evaluate.suite=https://me:{SECRET}@host/suite.yaml",
        f"problems=[{{jsonl: 'https://me:{SECRET}@host/a.jsonl'}}]",
    ],
)
def test_a_recipe_with_a_secret_is_refused_in_a_line_that_does_not_quote_it(
    override, recipe_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text = recipe_file().read_text(encoding="utf-8")
    for command in ("run", "plan"):
        assert cli.main([command, str(tmp_path / "recipe.yaml"), override]) == 2
    (tmp_path / "sweep.yaml").write_text(
        f"name: s\nrecipe: recipe.yaml\nset:\n  {override.replace('=', ': ', 1)}\nsettings: {{a: {{seed: 1}}}}\n"
    )
    assert cli.main(["sweep", "sweep.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 3
    assert not any(secret in shown.out + shown.err for secret in (SECRET, HUB, "11235813"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "sweep.yaml"]
    assert (tmp_path / "recipe.yaml").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/db",
        f"postgresql+psycopg://me:{SECRET}/@x@127.0.0.1:1/db",
        f"postgresql+psycopg://127.0.0.1:1/db?user=me&password={SECRET}",
        f"mysql://:{SECRET}@127.0.0.1/db",
        f"nothing://me:{SECRET}@h",
    ],
)
def test_the_password_of_a_storage_is_in_no_file_and_no_line(url, recipe_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe_file()
    (tmp_path / "sweep.yaml").write_text("name: s\nrecipe: recipe.yaml\nsettings: {a: {seed: 1}}\nseeds: {key: seed}\n")
    assert cli.main(["sweep", "sweep.yaml", "--storage", url]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: --storage ")
    assert "PGPASSWORD" in line and SECRET not in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml", "sweep.yaml"]


@pytest.mark.slow
def test_nothing_that_is_secret_around_a_run_is_in_its_files(smoke):
    run, printed = smoke
    assert (run / "report.html").is_file() and SECRET not in printed
    assert leaks(run.parent.parent / "home") and not leaks(run.parent)


@pytest.mark.parametrize(
    "harmless",
    [
        {"eos_token": "<|im_end|>", "pad_token": "x", "hub_token": None, "use_auth_token": True, "max_tokens": 5},
        {"model": "me/hf_tiny", "url": "http://localhost:8000/v1"},
        {"storage": "postgresql+psycopg://sweeper@/db?host=/tmp/x"},
        {"storage": "sqlite:////tmp/a/sweep.db", "tokens": "many", "settings": {"token": {"level": "token"}}},
    ],
)
def test_what_only_looks_like_a_secret_is_taken(harmless):
    assert not any(secrets(harmless))


def test_a_secret_is_cut_out_of_what_is_quoted():
    assert masked("at postgresql://me:pw@host/db: no") == "at postgresql://***@host/db: no"
    assert masked("https:/me:pw@host/x") == "https:/***@host/x"  # as a path writes it
    assert cut("a={token: pw}") == "a={token:***"
    assert cut("evaluate.max_tokens=5") == "evaluate.max_tokens=5"
