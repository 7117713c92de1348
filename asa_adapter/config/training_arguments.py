"""`ASATrainingArguments`: what the trainer tries, and what it chooses by."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asa_adapter.config.value_checks import ACTIONS, MAX_ALPHA, PROBE_KINDS, check_range, finite_float

POLICIES = ("gate", "readiness")
OBJECTIVES = ("f1", "balanced_accuracy")
_NUMBER_LISTS = (("alphas", 0.0, MAX_ALPHA), ("taus", 0.5, 1.0), ("betas", 0.0, 1.0), ("Cs", 1e-9, 1e9))


def _flag(default: Any, help: str, metavar: str | tuple[str, ...] = "", **options: Any) -> Any:
    """A field that `asa-adapter train` takes as a flag; its metadata are the arguments of argparse's `add_argument`.

    Args:
        default: the field's default.
        help: what the flag means; "{}" stands for the default.
        metavar: how the help names a value, or each of several; "" where there is none.
        options: the rest, such as `type`.
    """
    shown = " ".join(v if isinstance(v, str) else f"{v:g}" for v in default) if isinstance(default, tuple) else default
    named = {"metavar": metavar} if metavar else {}
    return field(default=default, metadata={"help": help.format(shown), **named, **options})


def _positive_argument(text: str) -> int:
    """A whole number above 0, as an argument of the command line."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


@dataclass(frozen=True)
class ASATrainingArguments:
    """What is tried, and what it is chosen by.

    Attributes:
        layers: decoder blocks to try, 0-based, or "all".
        alphas: steps to try, in units of the mean residual norm at the layer.
        taus: confidences to try, each 0.5 to 1. One above the lowest is taken only where it is surely better.
        betas: shares of the global direction to try, each 0 to 1.
        probes: probes to ask, "domain", "pooled" or both. The second is taken only where it is surely better; where
            the domains' probes have fewer than 100 rows each, the pooled one is the first.
        read_layers: how many layers the probes read, up to the steered one: 1, or several whose log odds are averaged.
            Of several numbers the smaller ones are taken only where they are surely better.
        Cs: inverse regularisation strengths to try; for each layer, the one whose probes have the least log loss on
            TRAIN, out of fold, is taken.
        objective: what to maximise, "f1" or "balanced_accuracy".
        max_fpr: with a number, maximise recall among the settings whose FPR on VALID is at most this. It limits what
            was measured there, and is no promise of the FPR on other prompts.
        max_fpr_confidence: with a number, such as .95, `max_fpr` limits the one-sided upper bound, of that confidence,
            of each setting's FPR on VALID. Near-duplicates and turns of one conversation count as one in it.
        cost: with two numbers, what a call without need and a missed call cost: their mean per row is minimised in
            place of `objective`, and the probes' log odds are shifted by log(missed / needless), so that at p = .5
            both cost the same. A gain must still hold in balanced accuracy too. Not together with `max_fpr`.
        success_required: whether the adapter abstains unless a gain in the F1 of successful calls is sure too: needed,
            of an offered tool, fitting its schema. Else it abstains only where that surely falls.
        actions: how the gate may act: some of "steer" (the push), "bias" (on the logits of the tokens with which
            calls begin) and "both", or "all". The best of each generate on VALID, which decides; within one standard
            error the push is taken. What those left out would reach by first tokens is in the report.
        policies: how the gate may decide: "gate" (the plain gate), "readiness" (of arXiv 2602.04935v3: a state's place
            on the direction counts too), or "all". The best of both generate on VALID; within one standard error the
            plain gate is taken.
        vary_tools: whether router and probes are also fitted on rows of CAL and TRAIN with other lists of tools, at
            most seven for each list: shuffled, wrapped, without some. None: where probes on VALID lose more than .03
            of their balanced accuracy by such lists, and at most .01 on VALID as given by being fitted on them. Rows
            that lose the tool they need count as rows without need; p is corrected for their share.
        refit: whether directions, router and probes are fitted once more when all is chosen, with the rows of VALID
            too. Figures on VALID stay those of before, whose fit is kept (see `ASAAdapter.for_split`).
        finalists: how many settings from the screen generate on VALID: the best of each layer first;
            twice as many where the screen agrees too little with what they generate.
        exhaustive: whether the screen runs every setting on all of TRAIN. Else settings race: the worse ones drop out
            on parts of it, and layers that read little of the need are left out.
        resamples: bootstrap resamples for every interval.
        max_new_tokens: longest answer.
        batch_size: prompts run together.
        seed: seed of everything random.
        output_dir: folder to save the adapter in when training ends.
        layer_path: dotted path of the model's block list, if it is not found by itself.
        chat_template: Jinja template to render prompts with, in place of the tokenizer's own.
        tool_call_format: name of the model's tool-call format, if it is not found by itself; see `ToolCallParser`.
        tool_call_start: the marker that opens a call, if it differs from the format's.
        tool_call_end: the marker that closes it, likewise.
        without_tools: whether rows may offer no tools. Else they are refused: an attached adapter leaves such prompts
            alone.
        sample_rows: file of rows that the adapter will hold, for `asa-adapter verify` and its card's example, in place
            of the package's own neutral prompts: a row of JSON in each line. No other row of yours enters an adapter.
        progress: whether to say what was understood, to show bars, and to print a line for each stage.

    Raises:
        ValueError: a field's value is out of its range.
        TypeError: a number is of another type than int or float (a bool is not a number).
    """

    layers: str | Sequence[int] = _flag("all", "decoder blocks to try (default: {})", "L", type=int, nargs="+")
    alphas: Sequence[float] = _flag(
        (0.25, 0.5, 1.0, 2.0),
        "steps to try, in units of the mean residual norm (default: {})",
        "X",
        type=float,
        nargs="+",
    )
    taus: Sequence[float] = _flag(
        (0.5, 0.6, 0.7, 0.8, 0.9), "confidences to try, 0.5 to 1 (default: {})", "X", type=float, nargs="+"
    )
    betas: Sequence[float] = _flag(
        (0.0, 0.5, 1.0), "shares of the global direction to try, 0 to 1 (default: {})", "X", type=float, nargs="+"
    )
    probes: Sequence[str] = PROBE_KINDS
    read_layers: Sequence[int] = _flag(
        (1, 4),
        "numbers of layers to read up to the steered one (default: {})",
        "N",
        type=_positive_argument,
        nargs="+",
    )
    Cs: Sequence[float] = (0.001, 0.01, 0.1, 1.0)
    objective: str = _flag("f1", "maximise f1 (default) or balanced_accuracy", "NAME", choices=OBJECTIVES)
    max_fpr: float | None = _flag(None, "maximise recall with at most this FPR instead", "X", type=float)
    max_fpr_confidence: float | None = _flag(
        None, "hold --max-fpr against the FPR's upper bound, such as .95", "X", type=float
    )
    cost: Sequence[float] | None = _flag(
        None,
        "minimise these costs of a needless and a missed call instead",
        ("NEEDLESS", "MISSED"),
        type=float,
        nargs=2,
    )
    success_required: bool = _flag(
        False, "abstain without a sure gain in calls that succeed, too", "", action="store_true"
    )
    actions: str | Sequence[str] = _flag(
        ("steer",),
        "try steer, bias, both, or all (default: {})",
        "A",
        choices=("all", *ACTIONS),
        nargs="+",
    )
    policies: str | Sequence[str] = _flag(
        ("gate",),
        "try gate, readiness, or all (default: {})",
        "P",
        choices=("all", *POLICIES),
        nargs="+",
    )
    finalists: int = _flag(4, "settings decided by generation (default: {})", "N", type=_positive_argument)
    vary_tools: bool | None = _flag(
        None,
        "fit on rows with other lists of tools too (default: where that is needed)",
        action=argparse.BooleanOptionalAction,
    )
    refit: bool = _flag(
        True, "fit once more with VALID's rows when all is chosen (default)", action=argparse.BooleanOptionalAction
    )
    exhaustive: bool = False
    resamples: int = 2000
    max_new_tokens: int = _flag(64, "longest answer (default: {})", "N", type=_positive_argument)
    batch_size: int = _flag(16, "prompts run together (default: {})", "N", type=_positive_argument)
    seed: int = _flag(42, "seed of everything random (default: {})", "N", type=int)
    output_dir: str | Path | None = None
    layer_path: str | None = None
    chat_template: str | None = _flag(None, "Jinja template for the prompts (default: the model's)", "FILE", type=str)
    tool_call_format: str | None = _flag(None, "how the model writes calls (default: found)", "F", type=str)
    tool_call_start: str | None = _flag(None, "marker that opens a call, if not the format's", "S", type=str)
    tool_call_end: str | None = _flag(None, "marker that closes a call, if not the format's", "S", type=str)
    without_tools: bool = _flag(False, "take rows that offer no tools, too", "", action="store_true")
    sample_rows: str | None = _flag(
        None, "rows that the adapter keeps for verify and card (default: neutral prompts)", "FILE", type=str
    )
    progress: bool = True

    def __post_init__(self) -> None:
        self._check_layers()
        self._check_actions()
        self._check_sequences()
        self._check_limit()
        self._check_cost()
        for name in ("success_required", "without_tools", "refit"):
            if type(value := getattr(self, name)) is not bool:
                raise ValueError(f"{name} is {value!r:.80}; expected True or False")
        for name, least in (
            ("finalists", 1),
            ("resamples", 100),
            ("max_new_tokens", 1),
            ("batch_size", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} is {value!r}; expected an int of at least {least}")
        if not any(self.alphas):
            raise ValueError(f"alphas is {self.alphas}; expected at least one step above 0")
        if not set(self.probes) <= set(PROBE_KINDS):
            raise ValueError(f"probes is {self.probes!r}; expected some of {PROBE_KINDS}")
        for name in ("chat_template", "tool_call_format", "tool_call_start", "tool_call_end"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise ValueError(f"{name} is {value!r:.80}; expected a text that is not empty, or None")
        if self.vary_tools is not None and type(self.vary_tools) is not bool:
            raise ValueError(f"vary_tools is {self.vary_tools!r:.80}; expected True, False or None")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}; expected one of {OBJECTIVES}")

    def _check_actions(self) -> None:
        for name, known in (("actions", ACTIONS), ("policies", POLICIES)):
            given = named = getattr(self, name)
            if named == "all" or (isinstance(named, Sequence) and tuple(named) == ("all",)):
                named = known
            if isinstance(named, str) or not isinstance(named, Sequence) or not named or not {*named} <= {*known}:
                raise ValueError(f"{name} is {given!r:.80}; expected some of {known}, or 'all'")
            object.__setattr__(self, name, tuple(named))

    def _check_limit(self) -> None:
        if self.max_fpr is not None:
            check_range("max_fpr", finite_float("max_fpr", self.max_fpr), 0, 1)
        if self.max_fpr_confidence is None:
            return
        confidence = finite_float("max_fpr_confidence", self.max_fpr_confidence)
        if not 0.5 < confidence < 1:
            raise ValueError(f"max_fpr_confidence is {confidence:g}; expected a number above .5 and below 1")
        if not self.max_fpr:
            raise ValueError(
                f"max_fpr_confidence is {confidence:g} and max_fpr {self.max_fpr}; expected a max_fpr above 0, since "
                "the confidence says how surely the FPR is to be below it"
            )

    def _check_cost(self) -> None:
        if self.cost is None:
            return
        if isinstance(self.cost, str) or not isinstance(self.cost, Sequence) or len(self.cost) != 2:
            raise ValueError(f"cost is {self.cost!r:.80}; expected two numbers: of a needless and of a missed call")
        costs = tuple(finite_float("cost", one) for one in self.cost)
        if min(costs) < 0 or max(costs) == 0:
            raise ValueError(f"cost is {costs}; expected two numbers not below 0, one of them above it")
        if self.max_fpr is not None:
            raise ValueError(
                f"cost is {costs} and max_fpr {self.max_fpr}; expected one of them: max_fpr maximises the recall "
                "within a limit, whatever a missed call costs"
            )
        object.__setattr__(self, "cost", costs)

    def _check_layers(self) -> None:
        if self.layers == "all":
            return
        if isinstance(self.layers, str) or not isinstance(self.layers, Sequence):
            raise ValueError(f"layers is {self.layers!r}; expected 'all' or layer numbers")
        numbers = tuple(self.layers)
        if not numbers or any(type(n) is not int for n in numbers) or len(set(numbers)) != len(numbers):
            raise ValueError(f"layers is {numbers!r}; expected different layer numbers, or 'all'")
        object.__setattr__(self, "layers", numbers)

    def _check_sequences(self) -> None:
        for name in ("alphas", "taus", "betas", "Cs", "probes", "read_layers"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence) or not len(value):
                raise ValueError(f"{name} is {value!r}; expected a sequence of at least one value")
            object.__setattr__(self, name, tuple(value))
        if wrong := [count for count in self.read_layers if type(count) is not int or count < 1]:
            raise ValueError(f"read_layers holds {wrong[0]!r:.80}; expected numbers of layers, each at least 1")
        for name, low, high in _NUMBER_LISTS:
            for value in getattr(self, name):
                check_range(name, finite_float(name, value), low, high)
