"""What a contributor meets in the checkout besides the package: the quick check, and GitHub's forms."""

import subprocess
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

GITHUB = ROOT / ".github"
FILES = ("constraints.txt", "constraints-next.txt")
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
WINGS = sorted(path.parent.name for path in (ROOT / "asa_adapter").glob("*/__init__.py"))
PARTS = [*WINGS, "examples", "adapter", "files", "states"]


# --- .ci/check


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci" / "check", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("wing", ["tools", "", "tool", "tool_calls/", "--help", "."])
def test_the_check_refuses_an_unknown_part_and_lists_the_parts(wing: str) -> None:
    done = check(wing)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr == f"'{wing}' is no part of asa_adapter; there are: {', '.join(PARTS)}\n"


def test_the_check_takes_one_part_at_a_time() -> None:
    done = check("hub", "vllm")
    assert (done.returncode, done.stderr) == (2, "usage: .ci/check [PART]\n")


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_tests_for_the_check_to_run(part: str) -> None:
    tests = ROOT / "tests"
    assert list((tests / part).glob("test_*.py")) or (tests / f"test_{part}.py").is_file()


# --- the versions that CI tests with


def test_the_next_versions_differ_from_the_pinned_ones_in_transformers_alone() -> None:
    pinned, following = ((ROOT / "tests" / name).read_text(encoding="utf-8").splitlines()[1:] for name in FILES)
    assert len(pinned) == len(following)
    changed = [(a.partition("==")[0], b) for a, b in zip(pinned, following, strict=True) if a != b]
    assert [name for name, _ in changed] == ["transformers"]


# --- GitHub's forms


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert [path.stem for path in FORMS] == ["bug", "model_not_steered", "tool_call_format"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_asks_for(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "dropdown")
        assert field["attributes"]["label"]
        assert field["type"] != "dropdown" or len(set(field["attributes"]["options"])) >= 2
        assert field.get("validations", {"required": True}) == {"required": True}
    assert any("validations" in field for field in form["body"])


def test_issues_are_opened_by_a_form() -> None:
    config = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "config.yml").read_text(encoding="utf-8"))
    assert config["blank_issues_enabled"] is False
    assert all(set(link) == {"name", "url", "about"} for link in config["contact_links"])


def test_a_pull_request_has_six_boxes_to_tick() -> None:
    lines = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("- [ ] ") for line in lines) == 6
