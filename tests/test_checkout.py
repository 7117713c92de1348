"""What a contributor meets in the checkout besides the package: the quick check, and GitHub's forms."""

import subprocess

import pytest
from checkout import ROOT

WINGS = sorted(path.parent.name for path in (ROOT / "asa_adapter").glob("*/__init__.py"))


# --- .ci/check


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci" / "check", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("wing", ["tools", "", "tool", "tool_calls/", "--help", "."])
def test_the_check_refuses_an_unknown_wing_and_lists_the_wings(wing: str) -> None:
    done = check(wing)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == f"'{wing}' is no wing of asa_adapter; there are: {', '.join(WINGS)}\n"


def test_the_check_takes_one_wing_at_a_time() -> None:
    done = check("hub", "vllm")
    assert (done.returncode, done.stderr) == (2, "usage: .ci/check [WING]\n")


@pytest.mark.parametrize("wing", WINGS)
def test_every_wing_has_tests_for_the_check_to_run(wing: str) -> None:
    assert list((ROOT / "tests" / wing).glob("test_*.py"))
