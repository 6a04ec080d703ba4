"""The API asked for in a process that has torch, and not yet the API."""

import sys

import r1_mini


def main(arguments):
    assert "torch" in sys.modules and "r1_mini.api" not in sys.modules
    vars(r1_mini).pop("plan", None)  # as before anything has imported it
    from r1_mini import UserError, plan

    assert plan.__name__ == "r1_mini.plan" and UserError is sys.modules["r1_mini.api"].UserError
