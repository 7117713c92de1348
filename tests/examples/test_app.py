"""The demo page: what it computes, without gradio; and the page itself where gradio is installed."""

import gc
import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from checkout import DATA, ROOT, load_script
from huggingface_hub import RepoCard
from models import traces
from packaging.requirements import Requirement

from asa_adapter import ASAAdapter

# gradio leaves event loops and sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

FOLDER = ROOT / "examples" / "app"
PROMPT = "how much is 48713 times 9264"
TOOLS = (DATA / "tools.json").read_text("utf-8")
app = load_script(FOLDER / "app.py")


@pytest.fixture(scope="module")
def loaded(tiny_lfm2: Any, tiny_adapter: ASAAdapter) -> Any:
    return app.Loaded(*tiny_lfm2, tiny_adapter)


def test_at_the_adapters_own_settings_it_shows_what_explain_finds(loaded: Any) -> None:
    config = loaded.adapter.config
    found = loaded.adapter.explain(loaded.model, loaded.tokenizer, PROMPT, max_new_tokens=128)
    shown = app.compare(loaded, PROMPT, TOOLS, config.alpha, config.tau)
    assert (shown.base, shown.steered) == (found["base"]["answer"], found["steered"]["answer"])
    assert shown.trace == app.trace(found)
    assert traces(loaded.model) == []


def test_without_a_step_both_answers_are_the_same(loaded: Any) -> None:
    shown = app.compare(loaded, PROMPT, TOOLS, 0, 0.5)
    assert shown.steered == shown.base
    assert ["step", "none"] in shown.trace


def test_tau_closes_the_gate(loaded: Any) -> None:
    gates = [dict(app.compare(loaded, PROMPT, TOOLS, 1.0, tau).trace)["gate"] for tau in (0.5, 1.0)]
    assert gates[0].split(":")[0] in ("+1", "-1")
    assert gates[1] == "0: left alone (tau 1)"


def test_the_bar_has_its_mark_at_p_and_its_zones_at_tau() -> None:
    drawn = app.bar(0.883, 0.6)
    assert "left:calc(88.3% - 3px)" in drawn
    assert "#0072B2 40.0%, #DDDDDD 40.0%, #DDDDDD 60.0%, #D55E00 60.0%" in drawn
    assert 'aria-label="p(tool) 0.883, tau 0.6"' in drawn
    assert "away from a call up to 0.40, towards one from 0.60" in drawn


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"triggered": False, "errors": []}, "no tool call"),
        ({"triggered": True, "errors": []}, "a tool call that fits the tools"),
        (
            {"triggered": True, "errors": ["no such tool: f", "g: 1 is too small"]},
            "no such tool: f; g: 1 is too small",
        ),
    ],
)
def test_an_answer_is_judged_in_a_few_words(answer: dict[str, Any], verdict: str) -> None:
    assert app.verdict(answer) == verdict


@pytest.mark.parametrize("text", ["", "[]", '[{"type": "function", "function": {"name": "f"}}]', TOOLS])
def test_tools_are_read(text: str) -> None:
    assert app.read_tools(text) == json.loads(text or "[]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "The tools are not valid JSON: "),
        ("[" * 15_000, "The tools are not valid JSON: "),
        ('{"name": "f"}', "must be a JSON list of objects, each with a name"),
        ('[{"title": "f"}]', "must be a JSON list of objects, each with a name"),
        ('[{"function": "f"}]', "must be a JSON list of objects, each with a name"),
        (" " * 20_001, "The tools have 20001 characters; at most 20000 are read."),
    ],
)
def test_tools_that_are_none_say_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        app.read_tools(text)


@pytest.mark.parametrize("prompt", ["", "  \n", "a" * 4001])
def test_a_prompt_has_a_length(loaded: Any, prompt: str) -> None:
    with pytest.raises(ValueError, match="Write a prompt of at most 4000 characters"):
        app.compare(loaded, prompt, TOOLS, 1.0, 0.5)


def test_model_and_adapter_are_loaded_from_folders(tiny_adapter: ASAAdapter, tmp_path: Any) -> None:
    tiny_adapter.save_pretrained(tmp_path)
    loaded = app.load(str(ROOT / "examples" / "tiny_lfm2"), str(tmp_path))
    assert loaded.adapter.digest() == tiny_adapter.digest()
    assert loaded.model.config.model_type == "lfm2"
    assert loaded.tokenizer.chat_template


def test_away_from_the_repository_it_says_what_to_set(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASA_ADAPTER", raising=False)
    monkeypatch.setattr(app, "HERE", tmp_path)
    with pytest.raises(SystemExit, match="no adapter here: set ASA_MODEL and ASA_ADAPTER to folders or Hub ids"):
        app.main()


# --- The folder as a Space


def test_its_card_names_a_gradio_that_the_package_allows() -> None:
    card = RepoCard.load(FOLDER / "README.md").data
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (gradio,) = map(Requirement, extras["app"])
    assert gradio.name == "gradio"
    assert gradio.specifier.contains(card.sdk_version)
    assert card.sdk == "gradio"
    assert (FOLDER / card.app_file).is_file()
    assert len(card.short_description) <= 60


def test_it_needs_nothing_but_this_package() -> None:
    (needed,) = map(Requirement, (FOLDER / "requirements.txt").read_text("utf-8").splitlines())
    assert (needed.name, needed.extras) == ("asa-adapter", {"app"})


# --- The page


@pytest.fixture(scope="module")
def page(loaded: Any) -> Iterator[Any]:
    pytest.importorskip(
        "gradio", reason="gradio is not installed: pip install 'asa-adapter[app]'", exc_type=ImportError
    )
    yield app.build(loaded)
    gc.collect()


def test_the_page_has_its_parts(page: Any) -> None:
    labels = [getattr(block, "label", None) for block in page.blocks.values()]
    for label in ("Prompt", "Tools", "Answer, bare model", "Answer, steered", "The decision"):
        assert label in labels


def compared(page: Any) -> list[Any]:
    return [event for event in page.fns.values() if event.api_name == "compare_answers"]


def test_the_page_has_prompts_to_click_and_is_a_tool_that_says_what_it_takes(page: Any) -> None:
    [examples] = [block for block in page.blocks.values() if type(block).__name__ == "Dataset"]
    assert [sample[0] for sample in examples.samples][:2] == [PROMPT, app.SAMPLE_PROMPTS[0]]
    [event] = compared(page)
    assert event.fn.__doc__.startswith("Answers a prompt by a language model alone and steered")
    assert list(event.fn.__annotations__) == ["prompt", "tools", "alpha", "tau", "return"]


def test_the_page_is_served_as_an_mcp_server(monkeypatch: pytest.MonkeyPatch, tiny_adapter: ASAAdapter) -> None:
    launched: list[dict[str, Any]] = []

    class Page:
        def launch(self, **options: Any) -> None:
            launched.append(options)

    monkeypatch.setattr(app, "load", lambda model, adapter: app.Loaded(None, None, tiny_adapter))
    monkeypatch.setattr(app, "build", lambda loaded: Page())
    app.main()
    assert launched == [{"mcp_server": True}]


def test_the_page_compares_one_request_at_a_time(page: Any, loaded: Any) -> None:
    [event] = compared(page)
    assert event.concurrency_limit == 1
    shown = event.fn(PROMPT, TOOLS, 1.0, 0.5)
    assert len(shown) == len(event.outputs)
    assert shown == app.compare(loaded, PROMPT, TOOLS, 1.0, 0.5)


def test_what_is_wrong_is_shown_on_the_page(page: Any) -> None:
    import gradio

    [event] = compared(page)
    with pytest.raises(gradio.Error, match="Write a prompt"):
        event.fn("", TOOLS, 1.0, 0.5)
