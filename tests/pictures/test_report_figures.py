"""Figures of a report: what they show, what they survive, and where they are kept."""

import copy
import io
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import fitted_adapter
from PIL import Image

from asa_adapter.evaluation.metrics import trigger_metrics
from asa_adapter.pictures import before_and_after, conversation
from asa_adapter.pictures.report_figures import PLOT_NAMES, caption, figures, plots
from asa_adapter.report import Report

DOMAINS = ["code", "math"]
LABELS, BASE, ASA = [1, 1, 0, 0] * 3, [1, 0, 1, 0] * 3, [1, 1, 0, 0] * 3


def setting(alpha: float, layer: int = 1, **more: float) -> dict[str, Any]:
    return {"layer": layer, "alpha": alpha, "tau": 0.5, "beta": 0.0, "probe": "domain", **more}


def report(names: list[str] = DOMAINS, layers: int = 3) -> dict[str, Any]:
    rows = [names[i % len(names)] for i in range(len(LABELS))]
    sure = {"intervals": {key: {"recall": [0.3, 0.9], "fpr": [0.0, 0.5]} for key in ("base", "asa")}}
    base, asa = (trigger_metrics(LABELS, called, rows) for called in (BASE, ASA))
    n = len(names)
    return {
        "arguments": {"objective": "f1"},
        "domains": names,
        "layers": {
            str(i): {"probe_auc": 0.6, "shuffled_auc": 0.5, "effect": {"alpha": 1.0, "up": 0.2, "down": -0.3}}
            for i in range(layers)
        },
        "screen": {
            "base": {"fpr": 0.5, "recall": 0.4},
            "best_of_each_layer": [setting(1.0, fpr=0.1, recall=0.8)],
            "front": [setting(0.5, fpr=0.0, recall=0.6), setting(1.0, fpr=0.1, recall=0.8)],
            "alpha_tau": [{"alpha": a, "tau": t, "score": a * t / 2} for a in (0.5, 1.0) for t in (0.5, 0.7, 0.9)],
        },
        "valid": {
            "base": {"fpr": 0.45, "recall": 0.5},
            "finalists": [setting(1.0, fpr=0.2, recall=0.9), setting(0.5, fpr=0.1, recall=0.7)],
        },
        "chosen": {**setting(1.0), "abstains": False},
        "diagnostics": {
            "domain_cosines": [[1.0 if i == j else 0.2 for j in range(n)] for i in range(n)],
            "marker_probability": {
                "alphas": [0.5, 1.0], "base": 0.4, "along": [0.6, 0.8], "against": [0.2, 0.1], "random": [0.4, 0.3],
            },
        },
        "evaluations": {"test": {"base": base, "asa": asa, **sure, "by_domain": dict.fromkeys(set(rows), sure)}},
        "gates": {"test": {"needed": [0, 1, 2, 3], "not_needed": [4, 2, 0, 0]}},
        "ablations": {"base": base, "full": asa, "no gate": base},
    }  # fmt: skip


def figures_of(report: Any) -> dict[str, Any]:
    return figures(Report.read(report))


def plots_of(report: Any) -> dict[str, bytes]:
    return plots(Report.read(report))


def lines(ax: Any) -> dict[str, tuple[list[float], list[float]]]:
    """Points of the lines of some axes, by their label."""
    return {line.get_label(): tuple(map(list, line.get_data())) for line in ax.lines}


def test_a_full_report_has_every_figure_with_title_and_named_axes() -> None:
    drawn = figures_of(report())
    assert tuple(f"{name}.png" for name in drawn) == PLOT_NAMES
    for figure in drawn.values():
        panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
        assert all(ax.get_title() for ax in panels)
        assert panels[-1].get_xlabel()


def test_layers_show_auc_control_and_effect() -> None:
    auc, effect = figures_of(report())["auc_and_effect_by_layer"].axes
    assert lines(auc)["probe"] == ([0, 1, 2], [0.6] * 3)
    assert lines(auc)["shuffled labels"] == ([0, 1, 2], [0.5] * 3)
    assert lines(effect)["step up"] == ([0, 1, 2], [0.2] * 3)
    assert lines(effect)["step down"] == ([0, 1, 2], [-0.3] * 3)


def test_the_surface_has_the_scores_of_the_screen() -> None:
    ax = figures_of(report())["score_by_alpha_and_tau"].axes[0]
    assert ax.images[0].get_array().tolist() == [[0.125, 0.175, 0.225], [0.25, 0.35, 0.45]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0.5", "1"]


def test_the_front_shows_base_choice_and_finalists() -> None:
    shown = lines(figures_of(report())["recall_against_fpr"].axes[0])
    assert shown["front of the screen"] == ([0.0, 0.1], [0.6, 0.8])
    assert shown["finalists, VALID"] == ([0.2, 0.1], [0.9, 0.7])
    assert shown["base, VALID"] == ([0.45], [0.5])
    assert shown["choice, VALID"] == ([0.2], [0.9])
    assert shown["choice, TRAIN (first token)"] == ([0.1], [0.8])


def test_the_choice_of_another_action_is_not_taken_for_the_push_at_the_same_place() -> None:
    found = report()
    acting = {"action": "both", "bias": "inf"}
    found["valid"]["finalists"].append({**found["valid"]["finalists"][0], **acting, "fpr": 0.05, "recall": 0.95})
    found["chosen"] |= acting
    shown = lines(figures_of(found)["recall_against_fpr"].axes[0])
    assert shown["choice, VALID"] == ([0.05], [0.95])
    assert "choice, TRAIN (first token)" not in shown


def test_an_abstaining_adapter_stands_where_the_base_stands() -> None:
    found = report()
    found["chosen"].update(alpha=0.0, abstains=True)
    shown = lines(figures_of(found)["recall_against_fpr"].axes[0])
    assert shown["choice, VALID"] == shown["base, VALID"]


@pytest.mark.parametrize("count", [1, 2, 12])
def test_domains_have_a_pair_of_bars_each_and_one_overall(count: int) -> None:
    names = [f"domain {i}" for i in range(count)]
    found = report(names)
    for ax, ratio in zip(figures_of(found)["domains_base_and_asa"].axes, ("recall", "fpr"), strict=True):
        test = found["evaluations"]["test"]
        expected = [
            part[ratio]
            for key in ("base", "asa")
            for part in (test[key], *(test[key]["per_domain"][name] for name in sorted(names)))
        ]
        assert [bar.get_width() for bar in ax.patches] == expected
        assert len(ax.lines) == 2 * (count + 1)


def test_cosines_are_a_matrix_and_one_domain_has_none() -> None:
    ax = figures_of(report())["cosines_of_directions"].axes[0]
    assert ax.images[0].get_array().tolist() == [[1.0, 0.2], [0.2, 1.0]]
    assert "cosines_of_directions" not in figures_of(report(["one"]))


def test_before_and_after_are_two_points_and_their_intervals() -> None:
    found, ax = report(), figures_of(report())["before_and_after"].axes[0]
    test = found["evaluations"]["test"]
    shown = lines(ax)
    for key, label in (("base", "the model alone"), ("asa", "the model with ASA")):
        assert shown[label] == ([test[key]["fpr"]], [test[key]["recall"]])
    assert len(ax.lines) == 2 * (1 + 2)
    [arrow] = [text for text in ax.texts if not text.get_text()]
    ends = [tuple(test[key][ratio] for ratio in ("fpr", "recall")) for key in ("base", "asa")]
    assert [arrow.xyann, arrow.xy] == ends


def test_several_models_stand_in_one_picture_and_none_is_refused() -> None:
    found = Report.read(report())
    figure = before_and_after({"one": found, "two": found})
    assert {"one alone", "one with ASA", "two alone", "two with ASA"} <= set(lines(figure.axes[0]))
    for wrong, message in (
        ({}, "found 0 reports; expected 1 to 4"),
        ({"a": Report()}, r"the report of 'a' has no evaluation of TEST; run trainer.evaluate\('test'\)"),
    ):
        with pytest.raises(ValueError, match=message):
            before_and_after(wrong)


def test_p_tool_is_counted_by_label_on_either_side_of_the_line() -> None:
    ax = figures_of(report())["p_tool_by_label"].axes[0]
    assert [bar.get_height() for bar in ax.patches] == [0, 1, 2, 3, -4, -2, 0, 0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches[:4]] == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert lines(ax)["tau 0.5"] == ([0.5, 0.5], [0, 1])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[1:] == ["a tool is needed (6 prompts)", "none is needed (6 prompts)"]


def test_a_conversation_has_a_mark_for_each_request_by_its_gate() -> None:
    ax = conversation(["hi", "two\nlines", "sum"], [0.1, 0.45, 0.9], [-1, 0, 1], 0.6).axes[0]
    shown = lines(ax)
    assert shown["pushed towards a call"] == ([0.9], [2])
    assert shown["left alone"] == ([0.45], [1])
    assert shown["away from one"] == ([0.1], [0])
    assert [line.get_xdata()[0] for line in ax.lines[-2:]] == [0.4, 0.6]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1  hi", "2  two lines", "3  sum"]


@pytest.mark.parametrize("requests", [[], ["hi"]])
def test_a_conversation_of_other_lengths_is_refused(requests: list[str]) -> None:
    with pytest.raises(ValueError, match="requests, 0 probabilities and 0 gates; expected one or more"):
        conversation(requests, [], [], 0.5)


def test_each_figure_has_a_caption_of_whole_sentences_in_the_card(tmp_path: Path) -> None:
    adapter = fitted_adapter()
    adapter.report = report()
    adapter.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    for name in PLOT_NAMES:
        told = caption(name)
        assert told is not None
        assert told[0].isupper()
        assert told.endswith(".")
        assert f"](plots/{name})\n\n{told}\n" in card
    assert caption("mine.png") is None


def test_the_marker_begins_at_the_bare_model() -> None:
    shown = lines(figures_of(report())["marker_probability_by_step"].axes[0])
    assert shown["along the direction"] == ([0, 0.5, 1.0], [0.4, 0.6, 0.8])
    assert shown["against the direction"] == ([0, 0.5, 1.0], [0.4, 0.2, 0.1])


def test_ablations_are_a_bar_each() -> None:
    ax = figures_of(report())["ablations"].axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0.5, 1.0, 0.5]


def test_names_are_no_formulas_and_stay_short() -> None:
    names = ["$x^{2$ _$\\frac{1}", "\u6570\u5b66", "w" * 200, "two\nlines"]
    found = plots_of(report(names))
    assert set(found) == set(PLOT_NAMES)
    ax = figures_of(report(names))["domains_base_and_asa"].axes[0]
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert any(label.startswith("$x^{2$ _$\\frac{1}") for label in labels)
    assert all(len(label) < 40 and "\n" not in label for label in labels)


def test_files_are_small_wide_and_the_same_each_time() -> None:
    names = [f"a domain with a long name, number {i}" for i in range(12)]
    found = plots_of(report(names, layers=16))
    assert found == plots_of(report(names, layers=16))
    for content in found.values():
        image = Image.open(io.BytesIO(content))
        assert image.width == 800
        assert 200 < image.height <= 900
        assert len(content) < 60_000
        assert image.info.keys() <= {"dpi", "transparency"}


def test_settings_and_backend_of_the_user_are_left_alone() -> None:
    with matplotlib.rc_context({"font.size": 31, "text.usetex": True, "savefig.dpi": 13}):
        before, modules = dict(matplotlib.rcParams), set(sys.modules)
        found = plots_of(report())
        assert dict(matplotlib.rcParams) == before
        assert "matplotlib.pyplot" not in set(sys.modules) - modules
    assert found == plots_of(report())


def test_without_matplotlib_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plots_of(report()) == {}
    adapter = fitted_adapter()
    adapter.report = report()
    adapter.save_pretrained(tmp_path)
    assert not (tmp_path / "plots").exists()
    assert "### Plots" not in (tmp_path / "README.md").read_text()


def test_saving_writes_them_shows_them_and_removes_those_of_an_earlier_report(tmp_path: Path) -> None:
    adapter = fitted_adapter()
    adapter.report = report()
    adapter.save_pretrained(tmp_path)
    (tmp_path / "plots" / "mine.png").write_bytes(b"\x89PNG")
    assert re.findall(r"\(plots/(.*)\)", (tmp_path / "README.md").read_text()) == list(PLOT_NAMES)
    assert "plots" not in str(type(adapter).from_pretrained(tmp_path).config.files)
    adapter.report = {"layers": adapter.report["layers"]}
    adapter.save_pretrained(tmp_path)
    left = ["auc_and_effect_by_layer.png", "mine.png"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == left
    assert re.findall(r"\(plots/(.*)\)", (tmp_path / "README.md").read_text()) == left


WRONG = st.sampled_from(
    [None, True, -1, 2, 10**400, 1e308, float("nan"), float("inf"), "", "$", [], [[]], {}, [None, None], {"a": {}}]
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a report with each of its keys."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_mutilated_report_breaks_a_figure(data: st.DataObject) -> None:
    found = copy.deepcopy(report())
    for _ in range(data.draw(st.integers(1, 4))):
        place = places(found)
        if place:
            container, key = place[data.draw(st.integers(0, len(place) - 1))]
            if data.draw(st.booleans()):
                del container[key]
            else:
                container[key] = copy.deepcopy(data.draw(WRONG))
    drawn = figures_of(found)
    assert set(drawn) <= {name.removesuffix(".png") for name in PLOT_NAMES}
    for figure in drawn.values():
        for ax in figure.axes:
            assert all(abs(number) < 2000 for line in ax.lines for number in line.get_xydata().ravel())
            assert all(0 <= bar.get_width() <= 1 for bar in ax.patches if ax.get_title().startswith(("Recall", "FPR")))
