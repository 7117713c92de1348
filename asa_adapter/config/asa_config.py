"""`ASAConfig`: what an adapter is, as one JSON file that checks itself."""

import dataclasses
import hashlib
import json
import math
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from asa_adapter.config.asa_config_checks import check_calls, check_prompts, check_read_layers
from asa_adapter.config.state_rules import Rule, check_by_state, check_states, check_step
from asa_adapter.config.value_checks import (
    ACTIONS,
    MAX_ALPHA,
    PROBE_KINDS,
    STATES,
    bias_amount,
    check_file_digests,
    check_json,
    check_range,
    check_text,
    check_tool_list,
    checked_domains,
    finite_float,
)
from asa_adapter.errors import AdapterFormatError
from asa_adapter.strict_json import parse_json

FORMAT_VERSION = 2
CONFIG_NAME = "asa_config.json"
_MAX_TEMPLATE = 256 * 1024
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_TEXT_FIELDS = (
    "base_model",
    "base_model_revision",
    "base_model_fingerprint",
    "model_type",
    "layer_path",
    "tool_call_format",
    "tool_call_start",
    "tool_call_end",
    "chat_template_sha256",
    "config_sha256",
)
# What format version 2 added. A config that uses none of it is written as version 1, which older releases read.
_SECOND_VERSION = (
    "prompt_end",
    "generation_tokens",
    "tools_marks",
    "tool_lists",
    "forms",
    "openings",
    "read_layers",
    "action",
    "bias",
    "opening_ids",
    "states",
    "state_marks",
    "by_state",
    "cap",
)
# Values with which such a field is not used.
_UNUSED = {"action": "steer", "states": STATES[:1]}


@dataclass(frozen=True)
class ASAConfig:
    """Settings of one fitted adapter, and the model they belong to.

    Attributes:
        hidden_size: width D of the residual stream.
        num_layers: number L of decoder blocks of the model.
        layer: 0-based index of the decoder block whose OUTPUT is read and steered.
        domains: names of the tool domains, in the order of the rows of the steering vectors.
        alpha: length of the step in units of `residual_norm`; 0 is the adapter that abstains.
        tau: confidence from which the gate opens, 0.5 to 1: +1 if p >= tau, -1 if p <= 1 - tau.
        beta: share of the global direction in the mixed one, 0 to 1.
        residual_norm: mean norm of the calibration states at `layer`; 1.0 makes alpha an absolute length.
        probe: whether the gate asks the routed domain's probe ("domain") or the one over all ("pooled").
        base_model: Hub id or path of the model that the adapter was fitted with.
        base_model_revision: commit of that model, where known.
        base_model_fingerprint: hash of that model's weights (see `fingerprint`), if they could be read.
        model_type: `model.config.model_type` of that model.
        layer_path: dotted path of the block list, for models where it is not found by itself.
        tool_call_format: name of that format, as `ToolCallParser` takes it.
        tool_call_start: text that opens a tool call in this model's format.
        tool_call_end: text that closes it.
        chat_template: the Jinja template that rendered the calibration prompts, where it was not the tokenizer's own.
        chat_template_sha256: SHA-256 of the chat template that rendered the calibration prompts.
        chat_template_variables: further variables given to the template, such as {"enable_thinking": False}.
        tools: JSON-schema tools that most rows were offered during calibration; None where they have no such list.
        files: SHA-256 by name of the payload files, set on save.
        config_sha256: SHA-256 of the rest of this config in canonical JSON, set on save.
        prompt_end: the last token ids that all prompts shared during fitting; () where they are not known.
        generation_tokens: how many of `prompt_end` are there because of `add_generation_prompt`.
        tools_marks: runs of token ids that the chat template writes around the tools, one of which is in each prompt
            with tools and none in a prompt without; () where the two cannot be told apart.
        tool_lists: SHA-256 of each list of tools that rows of CAL and TRAIN were offered; () where they had too many.
        forms: names of all formats in which this model's calls come, `tool_call_format` first; () if that is all.
        openings: ids of the tokens with which its calls begin, beside the start marker; () where there are none.
        read_layers: decoder blocks whose outputs the probes read, side by side, none beyond `layer`; () for `layer`.
        action: how the gate acts: "steer" adds the step to the residual stream, "bias" adds gate * `bias` to the
            logits of `opening_ids` at the first answer token, "both" does both.
        bias: that bias, in logits, 0 or more; `math.inf` (the text "inf" in the file) leaves only the likeliest of
            these tokens where the gate is +1, and none of them where it is -1.
        opening_ids: ids of all tokens with which its calls begin, start marker included; () where they are not known.
        states: kinds of state that it was fitted for: "first" (a prompt ends behind the user's turn), "after_result"
            (behind a tool's result), or both. Other rows are left alone, if they can be told.
        state_marks: by kind of state the runs of token ids with which the chat template begins such a turn; {} where
            the kinds cannot be told apart.
        by_state: by kind of state what differs there from `alpha`, `tau` and `beta` above, and `alpha_down`, the
            length of the step away from a call; it is that of `alpha` where it is not named. `ready_below`,
            `ready_above`, `domain_alpha` and `route` make the policy "readiness" of the gate; see `Rule`.
        cap: greatest length of a step, as a share of the state's norm; 0 for no limit.
        format_version: version of the folder's format: 2 where one of the fourteen fields above is used, else 1.

    Raises:
        TypeError: a field has another type than the one above (a bool is not a number).
        ValueError: a field's value is out of its range.
    """

    hidden_size: int
    num_layers: int
    layer: int
    domains: tuple[str, ...]
    alpha: float = 1.0
    tau: float = 0.5
    beta: float = 0.5
    residual_norm: float = 1.0
    probe: str = "domain"
    base_model: str | None = None
    base_model_revision: str | None = None
    base_model_fingerprint: str | None = None
    model_type: str | None = None
    layer_path: str | None = None
    tool_call_format: str | None = None
    tool_call_start: str | None = None
    tool_call_end: str | None = None
    chat_template: str | None = None
    chat_template_sha256: str | None = None
    chat_template_variables: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    files: dict[str, str] = field(default_factory=dict)
    config_sha256: str | None = None
    prompt_end: tuple[int, ...] = ()
    generation_tokens: int = 0
    tools_marks: tuple[tuple[int, ...], ...] = ()
    tool_lists: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    openings: tuple[int, ...] = ()
    read_layers: tuple[int, ...] = ()
    action: str = "steer"
    bias: float = 0.0
    opening_ids: tuple[int, ...] = ()
    states: tuple[str, ...] = STATES[:1]
    state_marks: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    by_state: dict[str, dict[str, float]] = field(default_factory=dict)
    cap: float = 0.0
    format_version: int = 1

    def __post_init__(self) -> None:
        self._check_integers()
        for name in ("alpha", "tau", "beta", "residual_norm", "cap"):
            object.__setattr__(self, name, finite_float(name, getattr(self, name)))
        object.__setattr__(self, "bias", bias_amount(self.bias))
        self._check_ranges()
        object.__setattr__(self, "domains", checked_domains(self.domains))
        for name in _TEXT_FIELDS:
            check_text(name, getattr(self, name))
        if self.layer_path is not None and not _DOTTED_PATH.fullmatch(self.layer_path):
            raise ValueError(f"layer_path is {self.layer_path!r}; expected a dotted path such as 'model.layers'")
        check_text("chat_template", self.chat_template, _MAX_TEMPLATE)
        if not isinstance(self.chat_template_variables, dict):
            raise TypeError(f"chat_template_variables is {self.chat_template_variables!r:.80}; expected a dict")
        check_json("chat_template_variables", self.chat_template_variables)
        check_tool_list(self.tools)
        check_file_digests(self.files)
        check_prompts(self)
        check_calls(self)
        check_read_layers(self)
        check_states(self)
        check_by_state(self)
        if self._newer():
            object.__setattr__(self, "format_version", FORMAT_VERSION)

    def _newer(self) -> dict[str, Any]:
        """The fields of format version 2 that are used, as they are stored."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name in _SECOND_VERSION}
        used = {name: value for name, value in values.items() if value and value != _UNUSED.get(name)}
        return used | ({"bias": "inf"} if self.bias == math.inf else {})

    def _check_integers(self) -> None:
        for name in ("format_version", "hidden_size", "num_layers", "layer", "generation_tokens"):
            value = getattr(self, name)
            if type(value) is not int:
                raise TypeError(f"{name} is {value!r:.80}; expected an int")
        if not 1 <= self.format_version <= FORMAT_VERSION:
            raise ValueError(
                f"format_version is {self.format_version}; this version of asa_adapter reads 1 to {FORMAT_VERSION}: "
                "upgrade asa_adapter"
            )
        if self.hidden_size < 1 or self.num_layers < 1:
            raise ValueError(
                f"hidden_size is {self.hidden_size} and num_layers {self.num_layers}; expected both at least 1"
            )
        if not 0 <= self.layer < self.num_layers:
            raise ValueError(
                f"layer is {self.layer}; expected 0 to {self.num_layers - 1}, since the model has "
                f"{self.num_layers} decoder blocks"
            )

    def _check_ranges(self) -> None:
        if not 0 <= self.alpha <= MAX_ALPHA:
            raise ValueError(f"alpha is {self.alpha}; expected 0 to {MAX_ALPHA:g}")
        if not 0.5 <= self.tau <= 1:
            raise ValueError(f"tau is {self.tau}; expected 0.5 to 1 (below 0.5 both gates would open)")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta is {self.beta}; expected 0 to 1")
        check_range("cap", self.cap, 0, MAX_ALPHA)
        if self.residual_norm <= 0:
            raise ValueError(f"residual_norm is {self.residual_norm}; expected more than 0")
        check_step("alpha", self.alpha if self.step else 0.0, self.residual_norm)
        if self.probe not in PROBE_KINDS:
            raise ValueError(f"probe is {self.probe!r:.80}; expected 'domain' or 'pooled'")
        if self.action not in ACTIONS:
            raise ValueError(f"action is {self.action!r:.80}; expected 'steer', 'bias' or 'both'")

    @property
    def reading(self) -> tuple[int, ...]:
        """The layers whose states the probes read, side by side: `read_layers`, or the steered layer."""
        return self.read_layers or (self.layer,)

    @property
    def hooked(self) -> tuple[int, ...]:
        """The layers whose states are needed, ascending; the last is the steered one, which the router reads."""
        return tuple(sorted({*self.reading, self.layer}))

    @property
    def step(self) -> float:
        """Length of the vector that the gate adds or subtracts, in the residual's own units; 0 for "bias"."""
        return 0.0 if self.action == "bias" else self.alpha * self.residual_norm

    @property
    def opening_bias(self) -> float:
        """What the gate adds to or subtracts from the logits of the openings; 0 for the action "steer"."""
        return 0.0 if self.action == "steer" else self.bias

    @property
    def abstains(self) -> bool:
        """Whether the adapter changes nothing, in any kind of state."""
        pushes = self.action != "bias" and any(self.rule(state).steps for state in self.states)
        return not (pushes or self.opening_bias)

    def rule(self, state: str) -> Rule:
        """How rows of a kind of state are decided and steered; for others and "", that of the first."""
        own = self.by_state.get(state if state in self.states else self.states[0], {})
        return Rule(**({"alpha": self.alpha, "tau": self.tau, "beta": self.beta} | own))

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON types; fields of format version 2 that are not used are left out."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if name not in _SECOND_VERSION}
        plain: dict[str, Any] = json.loads(json.dumps(values | self._newer()))
        return plain

    def digest(self) -> str:
        """SHA-256 of everything but `config_sha256`, in canonical JSON (sorted keys, no spaces)."""
        return _canonical_sha256(self.to_dict())

    def sealed(self, files: dict[str, str]) -> "ASAConfig":
        """A copy that names the checksums of its payload files and its own."""
        config = dataclasses.replace(self, files=dict(sorted(files.items())), config_sha256=None)
        return dataclasses.replace(config, config_sha256=config.digest())

    def to_json(self) -> str:
        """The text of `asa_config.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = CONFIG_NAME) -> "ASAConfig":
        """Reads a stored config.

        Args:
            text: the JSON text.
            source: how errors name it.

        Raises:
            AdapterFormatError: not strict JSON, an unknown format version, or an invalid field.
        """
        values = parse_json(text, source)
        if not isinstance(values, dict):
            raise AdapterFormatError(f"{source}: found a {type(values).__name__}; expected a JSON object")
        known = {f.name for f in dataclasses.fields(cls)}
        version = values.get("format_version")
        if type(version) is int and version == 1:
            known -= {*_SECOND_VERSION}
        if type(version) is int and version > FORMAT_VERSION:
            raise AdapterFormatError(
                f"{source}: format_version is {version}; this version of asa_adapter reads up to {FORMAT_VERSION}: "
                "upgrade asa_adapter"
            )
        if missing := sorted({"format_version", "hidden_size", "num_layers", "layer", "domains"} - values.keys()):
            raise AdapterFormatError(f"{source}: missing {', '.join(missing)}")
        if unknown := sorted(values.keys() - known):
            warnings.warn(f"{source}: ignored unknown keys {unknown!r:.200}", stacklevel=2)
        try:
            config = cls(**{key: value for key, value in values.items() if key in known})
        except (TypeError, ValueError) as error:
            raise AdapterFormatError(f"{source}: {error}") from error
        # A newer minor format may have keys unknown here, and its checksum may cover them or leave them out.
        signed = (config.digest(), _canonical_sha256(values))
        if config.config_sha256 is not None and config.config_sha256 not in signed:
            raise AdapterFormatError(
                f"{source}: its content does not match its config_sha256; it was edited or damaged; "
                "save the adapter again"
            )
        return config


def _canonical_sha256(values: dict[str, Any]) -> str:
    """SHA-256 of a config's fields, without its own checksum, in canonical JSON."""
    rest = {key: value for key, value in values.items() if key != "config_sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
