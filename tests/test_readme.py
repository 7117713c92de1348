"""Every code block of the READMEs, and the Python of the cards, run on the shipped tiny LFM2 and a small Hub.

A block that cannot be run here is listed below with what covers it; one that is neither run nor listed fails.
Links lead to files and headings that are there.
"""

import itertools
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from checkout import DATA, ROOT, TINY_LFM2
from hub import LocalHub
from markdown_it import MarkdownIt
from models import traces

from asa_adapter import ASAAdapter, ASATrainingArguments, load_splits
from asa_adapter.cli.entrypoint import main
from asa_adapter.data.rows import read_tools

# What people read, by its path: the README, those of wings and benchmarks, and GitHub's pages.
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        *sorted((ROOT / "asa_adapter").glob("**/README.md")),
        ROOT / "tests" / "benchmarks" / "README.md",
        *sorted((ROOT / ".github").glob("*.md")),
    )
}
CARDS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*/README.md"))
README = DOCUMENTS["README.md"]
FORMATS, HUB = "asa_adapter/tool_calls/README.md", "asa_adapter/hub/README.md"
CONTRIBUTING = ".github/CONTRIBUTING.md"
SHIPPED = ROOT / "examples" / "tiny_lfm2_asa"
REPO = "user/lfm25-asa"
# What stands in the README for a user's own, and what stands for it here; a training of one setting takes seconds.
INSTEAD = {
    "LiquidAI/LFM2.5-1.2B-Instruct": str(TINY_LFM2),
    "ASATrainer(model, tokenizer, splits)": "ASATrainer(model, tokenizer, splits, quick)",
    "--output my_adapter": "--output my_adapter --layers 6 --alphas 1 --taus 0.5 --betas 1 --finalists 1",
    "--output my_labels": "--output my_labels --times 1 --max-new-tokens 4",
    "path/to/the/model": str(TINY_LFM2),
    "user/adapter": REPO,
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, in which language, and what stands in it."""

    line: int
    language: str
    text: str
    output: str | None = None  # the block of text right behind it, which a command prints

    def __str__(self) -> str:
        return f"line {self.line}"


def blocks_of(readme: str) -> list[Block]:
    """The blocks of a Markdown text; a block of text behind a command belongs to it."""
    found: list[Block] = []
    for match in re.finditer(r"^```(\w*)\n(.*?)\n```$", readme, flags=re.MULTILINE | re.DOTALL):
        block = Block(readme.count("\n", 0, match.start()) + 1, match[1], match[2])
        before = found[-1] if found else None
        gap = readme.splitlines()[before.line + before.text.count("\n") + 2 : block.line - 1] if before else ["x"]
        if before and before.language == "bash" and block.language == "text" and not any(gap):
            found[-1] = Block(before.line, before.language, before.text, block.text)
        else:
            found.append(block)
    return found


BLOCKS = [(document, block) for document, text in DOCUMENTS.items() for block in blocks_of(text)]
COMMANDS = [
    (document, b)
    for document, b in BLOCKS
    if b.language == "bash" and b.text.startswith("asa-adapter ") and "--engine vllm" not in b.text
]
# Where the other blocks are and how they begin, why they are not run here, and where what they say is tested.
ELSEWHERE = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install -q -c tests/constraints.txt "): (
        "needs a package registry; the script that it starts is run there",
        "tests/examples/test_quickstart.py",
    ),
    ("README.md", "prompt ──> blocks"): ("a drawing", "tests/support/reference.py"),
    ("README.md", "@misc{"): ("a citation, looked at below", "tests/test_readme.py"),
    (FORMATS, "answers  "): ("what a script prints, compared there", "tests/examples/test_examples.py"),
    ("asa_adapter/cli/README.md", "asa-adapter: rows  "): ("takes a minute", "tests/training/test_console_lines.py"),
    ("asa_adapter/llamacpp/README.md", "from asa_adapter.llamacpp import"): (
        "needs the extra and a model file",
        "tests/llamacpp/test_model.py",
    ),
    ("asa_adapter/llamacpp/README.md", 'pip install ".[gguf]"'): (
        "needs the extra and a model file",
        "tests/llamacpp/test_files.py",
    ),
    ("asa_adapter/server/README.md", 'pip install "asa-adapter[serve]"'): (
        "serves",
        "tests/cli/test_serve_command.py",
    ),
    ("asa_adapter/server/README.md", "from openai import"): (
        "needs a client and a server",
        "tests/server/test_clients.py",
    ),
    ("asa_adapter/vllm/README.md", "pip install vllm"): ("needs vLLM and a server", "tests/serving/run.py"),
    ("asa_adapter/vllm/README.md", "asa-adapter verify"): ("needs vLLM", "tests/verification/test_asking_vllm.py"),
    (CONTRIBUTING, "python3 -m venv .venv && . .venv/bin/activate && pip install "): (
        "needs a package registry",
        ".ci/run",
    ),
    (CONTRIBUTING, ".ci/check tool_calls"): ("starts these tests", "tests/test_checkout.py"),
}


def test_every_block_is_run_or_listed() -> None:
    rest = [
        (document, block)
        for document, block in BLOCKS
        if block.language != "python" and (document, block.language) != ("README.md", "json")
    ]
    rest = [entry for entry in rest if entry not in COMMANDS]
    listed = {
        (where, beginning): [(d, b) for d, b in rest if d == where and b.text.startswith(beginning)]
        for where, beginning in ELSEWHERE
    }
    unlisted = [(d, b) for d, b in rest if not any((d, b) in some for some in listed.values())]
    assert not unlisted, f"neither run nor listed: {', '.join(f'{d}, {b}' for d, b in unlisted)}"
    assert {entry: len(some) for entry, some in listed.items()} == dict.fromkeys(ELSEWHERE, 1)
    assert all((ROOT / covered).is_file() for _, covered in ELSEWHERE.values())


def test_the_python_of_each_document_is_run_below() -> None:
    assert {d for d, b in BLOCKS if b.language == "python"} == {"README.md", FORMATS, HUB, CONTRIBUTING}


@pytest.mark.parametrize(
    ("readme", "blocks"),
    [
        ("```bash\nls\n```\n\n```text\na\n```\n", [Block(1, "bash", "ls", "a")]),
        ("```bash\nls\n```\nprints\n```text\na\n```\n", [Block(1, "bash", "ls"), Block(5, "text", "a")]),
        ("x\n\n```python\na\n\nb\n```\n", [Block(3, "python", "a\n\nb")]),
    ],
)
def test_blocks_are_found_with_the_output_of_commands(readme: str, blocks: list[Block]) -> None:
    assert blocks_of(readme) == blocks


# --- Python


@pytest.fixture
def workplace(tmp_path: Path, few_rows: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in that has what the README assumes: the examples, data and an adapter of one's own."""
    place = tmp_path / "work"
    shutil.copytree(few_rows, place / "my_data")
    shutil.copytree(SHIPPED, place / "my_adapter")
    (place / "my_rows").mkdir()
    for path in few_rows.glob("*.jsonl"):
        rows = [json.loads(line) | {"answer": "It depends."} for line in path.read_text("utf-8").splitlines()[:2]]
        (place / "my_rows" / path.name).write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (place / "examples").symlink_to(ROOT / "examples")
    shutil.copy(TINY_LFM2 / "chat_template.jinja", place / "own.jinja")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def users_hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """A Hub that has an adapter of this user's, who is logged in."""
    hub.users["hf_user"] = "user"
    monkeypatch.setenv("HF_TOKEN", "hf_user")
    files = {path.name: path.read_bytes() for path in SHIPPED.iterdir() if path.is_file()}
    hub.add(REPO, files, private=True)
    return hub


def run_python(file: Path, names: dict[str, Any]) -> None:
    """Runs a README's Python one block after the other; a traceback names the file and its line."""
    for block in blocks_of(file.read_text(encoding="utf-8")):
        if block.language == "python":
            exec(compile("\n" * block.line + replaced(block.text), str(file), "exec"), names)


def replaced(text: str) -> str:
    for here, instead in INSTEAD.items():
        text = text.replace(here, instead)
    return text


@pytest.mark.usefixtures("workplace")
def test_the_readmes_python_runs_from_its_first_block_to_its_last(
    users_hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ASATrainingArguments(layers=[6], alphas=[1.0], taus=[0.5], betas=[1.0], finalists=1, progress=False)
    names: dict[str, Any] = {"tools": read_tools(DATA / "tools.json"), "quick": quick}
    run_python(ROOT / "README.md", names)
    *explained, decision, results = capsys.readouterr().out.splitlines()
    told = re.search(r"print what led to one decision, (.*?)\(\[all", README, flags=re.DOTALL)
    assert told is not None
    page = " ".join(line.removeprefix("  | ") for line in explained)
    for number in map(float, re.findall(r"\b0\.\d+", told[1])):
        assert any(float(found) == pytest.approx(number, abs=0.02) for found in re.findall(r"\b0\.\d+", page))
    for answer in ("Well, it should be about 6000.", 'calculator(expression="48713 * 9264")'):
        assert answer in told[1]
        assert answer in page
    assert str(names["steering"].decisions).startswith("[<token ")
    fields = re.search(r"for each row: (.*)", README)
    assert fields is not None
    assert all(hasattr(names["decision"], field) for field in fields[1].split(", "))
    comment = re.search(r"print\(decision\)  # on the tiny LFM2: (.*)", README)
    assert comment is not None
    compare(decision, comment[1])
    assert results.startswith("{'base': {'n': 24, ")
    assert traces(names["model"]) == []
    pushed = ASAAdapter.from_pretrained(REPO)
    assert pushed.commit == users_hub.repos[REPO].refs["main"]
    for same in (pushed, ASAAdapter.from_pretrained("my_adapter")):
        assert names["adapter"].digest() == same.digest()
    assert names["adapter"].digest() != ASAAdapter.from_pretrained(SHIPPED).digest()


@pytest.mark.usefixtures("workplace")
def test_the_python_of_the_hubs_readme_pushes_and_loads(
    users_hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    before = users_hub.repos[REPO].refs["main"]
    adapter = ASAAdapter.from_pretrained(SHIPPED)
    adapter.report["metadata"] = {"license": "mit"}
    adapter.save_pretrained("my_adapter")
    names: dict[str, Any] = {}
    run_python(ROOT / HUB, names)
    commit = users_hub.repos[REPO].refs["main"]
    assert capsys.readouterr().out.splitlines() == [commit]
    assert commit != before
    assert names["url"].endswith(commit)
    assert names["adapter"].digest() == adapter.digest()


@pytest.mark.usefixtures("workplace")
def test_the_python_of_the_formats_readme_gives_arguments() -> None:
    names: dict[str, Any] = {}
    run_python(ROOT / FORMATS, names)
    assert isinstance(names["arguments"], ASATrainingArguments)
    assert names["arguments"].chat_template == Path("own.jinja").read_text()


def test_the_example_of_a_docstring_is_python_with_a_docstring() -> None:
    names: dict[str, Any] = {}
    run_python(ROOT / CONTRIBUTING, names)
    assert [section in names["last_positions"].__doc__ for section in ("Args:", "Returns:", "Raises:")] == [True] * 3


@pytest.mark.usefixtures("workplace", "users_hub")
@pytest.mark.parametrize("name", ["tiny_lfm2", "tiny_qwen3", "tiny_lfm2_asa", "data"])
def test_the_python_of_another_readme_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names: dict[str, Any] = {}
    run_python(ROOT / "examples" / name / "README.md", names)
    if name == "data":
        assert [len(names["splits"]["test"]), len(names["rows"]), len(names["german"])] == [320, 320, 160]
    else:
        assert capsys.readouterr().out.splitlines()[0].endswith("<|im_end|>")


def test_the_rows_that_it_shows_are_rows_that_load_splits_takes(tmp_path: Path) -> None:
    rows = [line for block in blocks_of(README) if block.language == "json" for line in block.text.splitlines()]
    assert {json.loads(row)["label"] for row in rows} == {0, 1}
    for name in ("cal", "train", "valid", "test"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), "utf-8")
    loaded = load_splits(tmp_path)["test"]
    assert [{key: row[key] for key in json.loads(text)} for row, text in zip(loaded, rows, strict=True)] == [
        json.loads(row) for row in rows
    ]


# --- Commands


@pytest.mark.usefixtures("workplace", "users_hub")
@pytest.mark.parametrize("block", [block for _, block in COMMANDS], ids=[f"{d}, {b}" for d, b in COMMANDS])
def test_the_commands_run_and_print_what_is_shown(
    block: Block, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for line in replaced(block.text).splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
        printed = capsys.readouterr().out
        assert printed.strip(), line
    if block.output is not None:
        compare(printed, block.output)


def compare(printed: str, shown: str) -> None:
    """Words must be the same; numbers nearly, and not at all in answers: another processor rounds differently."""
    number = r"\d+(?:\.\d+)?"
    assert re.sub(number, "0", printed.strip()) == re.sub(number, "0", shown)
    facts = ["\n".join(line for line in text.splitlines() if line[:3] != "  |") for text in (printed, shown)]
    found, stated = ([float(digits) for digits in re.findall(number, text)] for text in facts)
    assert found == pytest.approx(stated, rel=0.1, abs=0.05)


def test_it_shows_every_command() -> None:
    commands = {
        line.split()[1] for document, block in COMMANDS if document == "README.md" for line in block.text.splitlines()
    }
    assert commands == {"diagnose", "evaluate", "explain", "generate", "inspect", "label", "push", "train"}


# --- Names and links


def test_the_scripts_that_it_names_are_there() -> None:
    named = {document: scripts(text) for document, text in DOCUMENTS.items()}
    assert len(named["README.md"]) >= 8
    missing = {d: [name for name in sorted(names) if not (ROOT / name).is_file()] for d, names in named.items()}
    assert {d: names for d, names in missing.items() if names} == {}


def scripts(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w/])(?:examples|tests|asa_adapter)/[\w/]+\.(?:py|md|png|txt|ipynb)", text))


@pytest.mark.parametrize("document", [*DOCUMENTS, *CARDS])
def test_its_links_lead_to_files_and_headings_that_are_there(document: str) -> None:
    place = ROOT / document
    broken = [link for link in links(place.read_text(encoding="utf-8")) if not arrives(place, link)]
    assert not broken, f"{document} links to what is not there: {', '.join(broken)}"


def test_broken_links_are_noticed() -> None:
    text = "# A b\n\n[a](README.md#see-it-work) ![b](no.png) [c](README.md#no) [d](#no) [e](#a-b) [f](http://f.g)\n"
    assert links(text) == ["README.md#see-it-work", "no.png", "README.md#no", "#no", "#a-b", "http://f.g"]
    assert arrives(ROOT / "README.md", "README.md#see-it-work")
    assert arrives(ROOT / "README.md", "http://f.g")
    assert not any(arrives(ROOT / "README.md", link) for link in ("no.png", "README.md#no", "#no", "#a-b"))
    assert anchors(text) == {"a-b"}


def links(text: str) -> list[str]:
    """Where a Markdown text's links and pictures lead."""
    inside = [
        token for block in MarkdownIt("gfm-like", {"linkify": False}).parse(text) for token in block.children or []
    ]
    targets = [
        token.attrs.get("href", token.attrs.get("src")) for token in inside if token.type in ("link_open", "image")
    ]
    return [str(target) for target in targets]


def arrives(document: Path, link: str) -> bool:
    """Whether a relative link leads to something, and an anchor to a heading; other sites are not asked."""
    if link.startswith(("https://", "http://")):
        return True
    file, _, anchor = link.partition("#")
    target = document.parent / file if file else document
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a Markdown text."""
    tokens = MarkdownIt().parse(text)
    titles = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# --- The rest


def test_the_citation_is_of_the_paper_that_it_opens_with() -> None:
    [entry] = [block.text for block in blocks_of(README) if block.language == "bibtex"]
    opening = README.partition("\n## ")[0]
    number = re.search(r"eprint\s*=\s*\{([\d.]+)\}", entry)
    assert number is not None
    assert f"[arXiv {number[1]}](https://arxiv.org/abs/{number[1]})" in opening
    assert entry.count("{") == entry.count("}")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_it_has_no_placeholder_left(document: str) -> None:
    assert not re.search(r"(^|: )[A-Z]{4,}$", DOCUMENTS[document], flags=re.MULTILINE)


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 260
