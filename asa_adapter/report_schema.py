"""What is read of a report.json, which may be a stranger's, as JSON Schema; `asa_adapter.report` explains the keys."""

from typing import Any, NamedTuple

from asa_adapter.strict_json import by_name, list_of, number_within, with_keys

COUNTS = ("n", "tp", "fp", "fn", "tn")
RATIOS = ("precision", "recall", "f1", "accuracy", "fpr")
GOLD = ("n", "match", "in_order")
# How lists of tools are varied, and what is known of the gates then.
VARIATIONS = ("shuffled", "thinned", "wrapped", "without")
VARIED_COUNTS = ("rows", "left_out", "lost", "won")
VARIED_SHARES = ("right", "given_right", "called", "given_called")
VALIDITY = ("format", "tool_name", "arguments", "success_precision", "success_recall")


GATES_BY_LABEL = ("needed", "not_needed")


class Point(NamedTuple):
    """Where a setting, or the bare model, stands between calls without need and calls that were needed."""

    fpr: float
    recall: float


class Effect(NamedTuple):
    """Change of the start marker's probability, -1 to 1, by a step of length `alpha` up and down."""

    alpha: float
    up: float
    down: float


_FLAG = {"type": "boolean"}
_TEXT, _WORDS = {"type": "string"}, {"type": "string", "minLength": 1}
_NAMES = list_of(_WORDS, minItems=1) | {"x-one": True}  # a text counts as a list of one
_COUNT = {"type": "integer", "minimum": 0, "maximum": 10**12 - 1}
_NUMBER = number_within(-1e300, 1e300)  # a whole number in JSON may be longer than any float
_SHARE, _CHANGE, _STEP, _COSINE = (
    number_within(0, 1),
    number_within(-1, 1),
    number_within(0, 1000),
    number_within(-1.001, 1.001),
)
_COUNTED = dict.fromkeys(COUNTS, _COUNT) | dict.fromkeys(RATIOS, _SHARE)
_METRICS = with_keys(
    _COUNTED,
    **_COUNTED,
    per_domain=by_name(with_keys(_COUNTED, **_COUNTED)),
    validity=by_name(_NUMBER, required=list(VALIDITY), default={}),
    gold=by_name(_NUMBER, required=list(GOLD), default={}),
    cut=_COUNT,
    cut_share=_SHARE,
)
_INTERVALS = by_name(with_keys(**dict.fromkeys(RATIOS, list_of(_NUMBER, minItems=2, maxItems=2))))
_SURE = {"intervals": _INTERVALS, "mcnemar_p": _SHARE, "by_domain": by_name(with_keys(intervals=_INTERVALS))}
_PAIRED = with_keys(intervals=_INTERVALS, mcnemar_p=_SHARE)
_RULE = with_keys(
    ("metrics",), metrics=_METRICS, valid=_NUMBER, choice=_TEXT, cost=by_name(_NUMBER), against_base=_PAIRED
)
_AGAINST_BEST = {"steering_against_best": _PAIRED, "success_gain": list_of(_CHANGE, minItems=2, maxItems=2)}
_POINT = with_keys(Point._fields, fpr=_SHARE, recall=_SHARE)
_LAYERS = list_of({"type": "integer"}, default=[])
_RULES = by_name(by_name(_NUMBER))
_SETTING = {"probe": _TEXT, "read_layers": _LAYERS, "action": _TEXT, "bias": {}, "by_state": _RULES}  # bias: or "inf"
_SETTINGS = list_of(by_name(_NUMBER, properties={"fpr": _SHARE, "recall": _SHARE, **_SETTING}))
_CELLS = list_of(with_keys(alpha=_STEP, tau=_SHARE, score=_NUMBER))
_EFFECT = with_keys(Effect._fields, alpha=_STEP, up=_CHANGE, down=_CHANGE)
SERIES = dict.fromkeys(("along", "against", "random"), list_of(_SHARE, default=[]))
_MARKER = with_keys(("base", "alphas"), base=_SHARE, alphas=list_of(_STEP, minItems=1), **SERIES)
# What a way through a conversation is measured by; see `asa_adapter.trajectories.scores.shares`.
OF_CONVERSATIONS = ("first_call", "sequence", "missing", "needless", "repeated", "finished")
_SPANS = by_name(by_name(list_of(_CHANGE, minItems=2, maxItems=2)))
_RUN = by_name(_SHARE, required=list(OF_CONVERSATIONS))
_CONVERSATIONS = with_keys(
    ("base", "asa"), conversations=_COUNT, turns=_COUNT, needed=_COUNT, base=_RUN, asa=_RUN, intervals=_SPANS
)
_HABIT = with_keys(answers=_COUNT, calls=_COUNT, shares=by_name(_SHARE, default={}), shown=_WORDS, differs=_FLAG)
_VARIED = {**dict.fromkeys(VARIED_COUNTS, _COUNT), **dict.fromkeys(VARIED_SHARES, _SHARE)}
_IDS = list_of({"type": "integer"})
_SEEN = {"gate": {"type": "integer", "minimum": -1, "maximum": 1}, "p_tool": _SHARE, "steered": _IDS, "bare": _IDS}
_SAMPLE: dict[str, dict[str, Any]] = {**dict.fromkeys(("chat", "prompt"), _WORDS), "domain": _TEXT, **_SEEN}
_SAMPLES = list_of(with_keys(_SAMPLE, **_SAMPLE, tools=_TEXT, state=_TEXT, reason=_TEXT), maxItems=64, default=[])
_BINS = list_of(_COUNT, minItems=2, maxItems=100)
_SHOWN = with_keys(("prompt", "base", "asa"), prompt=_WORDS, base=_TEXT, asa=_TEXT)
SCHEMA = with_keys(
    samples=with_keys(engine=_TEXT, device=_TEXT, dtype=_TEXT, quantised=_TEXT, rows=_SAMPLES),
    router_left_out=_WORDS,
    vary_tools=with_keys(fitted=_FLAG, why=_TEXT, rows=_COUNT, taken_away=_COUNT),
    refit=with_keys(rows=_COUNT, judged=_TEXT),
    variations=by_name(by_name(with_keys(_VARIED, **_VARIED))),
    habit=_HABIT,
    evaluations=by_name(with_keys(("base", "asa"), base=_METRICS, asa=_METRICS, **_SURE)),
    ablations=by_name(_METRICS | {"properties": {**_METRICS["properties"], "against_full": _PAIRED}}),
    rules=with_keys(rows=by_name(_RULE), left_out=by_name(_TEXT), best=_TEXT, **_AGAINST_BEST),
    conversations=by_name(_CONVERSATIONS),
    splits=by_name(with_keys(("rows", "tool_needed"), rows=_COUNT, tool_needed=_COUNT)),
    layers=by_name(by_name(_NUMBER, properties={"effect": _EFFECT})),
    screen=with_keys(base=_POINT, best_of_each_layer=_SETTINGS, front=_SETTINGS, alpha_tau=_CELLS),
    valid=with_keys(base=_POINT, finalists=_SETTINGS, success_note=_WORDS, chosen_again=_SHARE, train_rows=_COUNT),
    gates=by_name(with_keys(GATES_BY_LABEL, **dict.fromkeys(GATES_BY_LABEL, _BINS))),
    demonstration=with_keys(("shown", "asked", "changed"), asked=_COUNT, changed=_COUNT, shown=_SHOWN, own=_FLAG)
    | {"default": {}},
    controls=by_name(with_keys(bag_of_words=with_keys(auc=_SHARE), probe_auc=_SHARE)),
    chosen=by_name(_NUMBER, properties={**_SETTING, "why": _TEXT, "abstains": _FLAG}),
    domains=list_of({}),
    diagnostics=with_keys(domain_cosines=list_of(list_of(_COSINE), default=[]), marker_probability=_MARKER),
    arguments=by_name({}),
    versions=by_name(_TEXT),
    seconds=by_name(_NUMBER),
    metadata=with_keys(license=_WORDS, data_license=_WORDS, labels=_WORDS, datasets=_NAMES, language=_NAMES),
)
