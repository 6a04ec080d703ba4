"""Verifiers of other packages, in their process: right answers, hostile ones, and ones that never end."""

import os
import signal
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.errors import UserError
from r1_mini.judges import sandbox as sandbox_module
from r1_mini.judges.judges import JUDGES
from r1_mini.judges.sandbox import LONGEST_ANSWER, Sandbox, require, verified

pytest.importorskip("math_verify")


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_no_text_makes_the_judge_of_formulas_raise(answer: str) -> None:
    assert JUDGES["latex"](answer, r"\frac{17}{31}") is False


@pytest.fixture
def sandbox():
    sandbox = Sandbox("latex")
    assert sandbox.call("judge", "1", "1") == {"result": True}
    yield sandbox
    sandbox.stop()


def test_one_process_answers_all_questions_and_a_killed_one_is_replaced(sandbox) -> None:
    first = sandbox.process
    assert sandbox.call("judge", "1", "2") == {"result": False}
    assert sandbox.process is first
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert sandbox.call("judge", "2", "2") == {"result": True}
    assert sandbox.process is not first


@pytest.mark.slow
def test_a_question_without_end_is_wrong_and_the_next_is_answered(sandbox) -> None:
    begun = time.monotonic()
    assert "no reply" in sandbox.call("judge", "9^{9^{9^{9}}}", "1")["error"]
    assert time.monotonic() - begun < sandbox_module.WAIT
    assert sandbox.call("judge", "1", "1") == {"result": True}


def test_silence_is_no_verdict_after_the_wait(sandbox, monkeypatch) -> None:
    os.kill(sandbox.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(sandbox_module, "WAIT", 0.0)
    assert "silent for 0 s" in sandbox.call("judge", "3", "3")["error"]
    assert sandbox.process is None


def test_a_missing_package_is_said_with_its_extra(monkeypatch) -> None:
    monkeypatch.setattr(sandbox_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"latex: math_verify is not installed; pip install 'r1-mini\[math\]'"):
        require("latex")
    with pytest.raises(UserError, match=r"reasoning_gym is not installed; pip install 'r1-mini\[gym\]'"):
        Sandbox("reasoning_gym").call("judge", "1", "{}")
    require("amount")  # needs none


def test_questions_without_end_are_soon_asked_no_more_and_others_are_again_after_a_while(monkeypatch) -> None:
    class Silent(Sandbox):
        def _start(self) -> None:
            self.pipe, self.asked = self, getattr(self, "asked", 0)

        def send_bytes(self, question: bytes) -> None:
            self.asked += 1
            if b"endless" in question:
                raise EOFError

        def _reply(self):
            return {"result": True}

    sandbox = Silent("latex")
    monkeypatch.setitem(sandbox_module._SANDBOXES, "latex", sandbox)
    assert verified("latex", "1" * (LONGEST_ANSWER + 1), "1") is False
    assert not hasattr(sandbox, "asked")  # it is too long
    assert not any(verified("latex", f"endless {number}", "1") for number in range(256))
    assert sandbox.asked == sandbox.timeouts == 18  # the first six, and then one of twenty
    assert [verified("latex", f"{number}", "1") for number in range(25)][-4:] == [True] * 4
    assert all(verified("latex", f"{number}", "1") for number in range(25))  # what was not asked was not noted
