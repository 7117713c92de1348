"""One prompt looked at closely: what the adapter reads in it, what it adds, and what the model answers either way."""

import dataclasses
import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.errors import AnswerWrapper, visible
from asa_adapter.matching.prompt_resemblance import NO_TOOLS, Resemblance
from asa_adapter.modeling.forward import evaluation_mode, greedy_settings, input_device
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.modeling.residual_stream import decoder_blocks, generating_model
from asa_adapter.notations.tool_schemas import Tools, tool_names, tool_schemas
from asa_adapter.parts.classifiers import Probes, Router
from asa_adapter.policy.decision import Decision
from asa_adapter.states import last_token_states
from asa_adapter.steering.hook import SteeringHandle, is_steered
from asa_adapter.templates.bounded_rendering import refuse_template_from_hub, with_bounded_template
from asa_adapter.tool_calls.outcomes import answer_verdict
from asa_adapter.tool_calls.parser import ToolCallParser

_TAIL_CHARACTERS = 240
_TOO_WEAK = "for this prompt the action is too weak (raise steering.alpha, or force it: with_action('bias', math.inf))"
_WIDTH = 80


class Explanation(dict[str, Any]):
    """What `ASAAdapter.explain` found, as plain JSON types; printed, it is a page for a terminal.

    Keys:
        prompt: tail (the rendered prompt's end), tokens, position (of the steered token), tools (names), notes (in
            what it is unlike the prompts of the fit).
        domain, domains: the routed domain, and the router's probability of each.
        p_tool, p_by_domain, tau, gate: the probe's answer, what the probe of each domain says, and the gate.
        step: layer, alpha (with a cap or readiness, that of the step as it was made), absolute (length of what is
            added, signed), state_norm, relative (to that norm).
        action: what was changed, "steer", "bias" or "both", as in `Decision`.
        abstains: whether the adapter changes nothing, whatever the prompt.
        start: marker, token (the likeliest, for the bare model, of those with which answers that call begin), the
            probability of all of them together before and after the action, and `bias`, what was added to their
            logits: a signed number, or the text "inf" or "-inf".
        base, steered: answer, triggered, calls, format, tool_name, arguments, errors.
    """

    def __str__(self) -> str:
        return self.page(min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))

    def page(self, width: int = _WIDTH) -> str:
        """The explanation in lines of at most `width` characters; what a terminal would obey is escaped."""
        prompt = self["prompt"]
        tools = f"tools: {', '.join(prompt['tools'])}" if prompt["tools"] else "no tools"
        lines = [
            *_wrapped_fact(f"Prompt of {prompt['tokens']} tokens, {tools}; it ends", width, ""),
            *_quoted_answer(prompt["tail"], width),
            *(line for note in prompt["notes"] for line in _wrapped_fact(f"! {note}", width, "")),
            *_wrapped_fact(f"Decision at token {prompt['position']}, after block {self['step']['layer']}", width, ""),
        ]
        for name, fact in self._facts().items():
            lines += _wrapped_fact(f"{name:<13}{fact}", width, "  ", " " * 13)
        for name in ("base", "steered"):
            lines += [f"Answer, {name}: {answer_verdict(self[name])}", *_quoted_answer(self[name]["answer"], width)]
            lines += [line for error in self[name]["errors"] for line in _wrapped_fact(f"- {error}", width, "  ")]
        return visible("\n".join(lines))

    def _facts(self) -> dict[str, str]:
        """The decision and its step in words, a line each."""
        step, start = self["step"], self["start"]
        ranked = sorted(self["domains"].items(), key=lambda item: -item[1])
        added = f"{step['absolute']:+.3g}, {step['relative']:+.0%} of the state's norm of {step['state_norm']:.3g}"
        endless = {"inf": " (forced)", "-inf": " (forbidden)", 0.0: ""}
        lifted = endless[bias] if (bias := start["bias"]) in endless else f" (logits {bias:+g})"
        gate, token = f"{self['gate']:+d}" if self["gate"] else "0", _explained_token(start["token"])
        reach = _reach_in_words(self["gate"], self["p_tool"], self["tau"])
        decided = f"with tau {self['tau']:g} the gate is {gate}{reach}"
        if self["abstains"]:
            decided = "this adapter abstains: whatever p is, it adds nothing"
        return {
            "domain": ", ".join(f"{name} {p:.3f}" for name, p in ranked),
            "p(tool)": f"{self['p_tool']:.3f}; {decided}",
            "step": added if step["absolute"] else "none",
            "call begins": f"p({token}) {start['before']:.3g} -> {start['after']:.3g}{lifted}{self._missed()}",
        }

    def _missed(self) -> str:
        """What a reader is told where the answer is not what the gate is for."""
        if self["gate"] < 0 and self["steered"]["triggered"]:
            return f". It calls all the same: {_TOO_WEAK}"
        if self["gate"] > 0 and not self["steered"]["triggered"]:
            return f". It does not call all the same: {_TOO_WEAK}"
        return ""


def _reach_in_words(gate: int, p: float, tau: float) -> str:
    """From where to where p leads to a gate; "" where more than p decided.

    Example:
        >>> _reach_in_words(-1, 0.267, 0.6)
        ' (p up to 0.4)'
    """
    reaches = {1: (p >= tau, f"from {tau:g}"), -1: (p <= 1 - tau, f"up to {1 - tau:g}")}
    reached, words = reaches.get(gate, (1 - tau < p < tau, f"between {1 - tau:g} and {tau:g}"))
    return f" (p {words})" if reached else ""


class Explained(Protocol):
    """What `explain` needs of an adapter: its parts, where it is from, its parser, and that it can be attached."""

    config: ASAConfig
    router: Router
    probes: Probes
    commit: str | None

    def parser(self, tokenizer: Any) -> ToolCallParser:
        """A parser for the model's calls."""

    def attach(self, model: nn.Module, *, tokenizer: Any, allow_mismatch: bool) -> SteeringHandle:
        """Steers the model."""


def explain(
    adapter: Explained,
    model: nn.Module,
    tokenizer: Any,
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    tools: Tools | None = None,
    max_new_tokens: int = 64,
    allow_mismatch: bool = False,
    trust_template: bool = False,
) -> Explanation:
    """Answers one prompt twice, without and with the adapter, and shows what led to it.

    Args:
        adapter: the adapter.
        model: the model to steer.
        tokenizer: its tokenizer.
        prompt: what the user says, or a chat.
        tools: tools to offer; those of the config where None.
        max_new_tokens: longest answer.
        allow_mismatch: as in `ASAAdapter.attach`.
        trust_template: whether to render with the chat template of an adapter from the Hub.

    Raises:
        ValueError: the model is steered already, the prompt cannot be rendered, or the adapter comes from the Hub with
            a chat template of its own that is not trusted.
        IncompatibleModelError: the adapter does not fit the model.
    """
    given, model, config = model, generating_model(model), adapter.config
    if is_steered(model):
        raise ValueError("the model has an adapter attached; remove() it first: the base would be shown steered")
    refuse_template_from_hub(config.chat_template, adapter.commit, trust_template)
    tokenizer = with_bounded_template(tokenizer, config.chat_template)
    parser = adapter.parser(tokenizer)
    schemas = tool_schemas(config.tools if tools is None else tools)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    prompt_ids = encode_prompt(tokenizer, messages, schemas, parser)
    openings = list(parser.opening_ids(tokenizer))
    ids = torch.tensor([prompt_ids], device=input_device(model))
    settings = greedy_settings(tokenizer, max_new_tokens) | {"output_logits": True, "return_dict_in_generate": True}
    with evaluation_mode(model):
        with adapter.attach(given, tokenizer=tokenizer, allow_mismatch=allow_mismatch) as steering:
            steered, after = _explained_answer(model, ids, openings, settings)
            decision = steering.decisions[0]
        base, before = _explained_answer(model, ids, openings, settings)
        states = _bare_states(model, ids, config)
    return Explanation(
        prompt=_explained_prompt(tokenizer, prompt_ids, decision.position, schemas)
        | {"notes": [*Resemblance(config).notes(prompt_ids, schemas), *_why_left_alone(config, decision)]},
        **_explained_decision(adapter, decision, states),
        step=_explained_step(config, decision, float(states[config.layer].norm())),
        start={"marker": parser.start, "token": _decoded(tokenizer, [openings[int(before.argmax())]])}
        | {"before": float(before.sum()), "after": float(after.sum()), "bias": _explained_bias(config, decision.gate)},
        base=_judged_answer(base, parser, schemas),
        steered=_judged_answer(steered, parser, schemas),
    )


def _why_left_alone(config: ASAConfig, decision: Decision) -> list[str]:
    """Why a prompt with tools is left alone, as the explanation says it; [] where it is not."""
    if config.abstains:
        return ["this adapter abstains, so it leaves every prompt alone, whatever p(tool) says"]
    return [f"{decision.reason}, so it is left alone"] if decision.reason not in ("", NO_TOOLS) else []


def _explained_prompt(tokenizer: Any, ids: list[int], position: int, schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """The prompt's end and length, the steered token, and the tools by name."""
    return {
        "tail": _explained_tail(_decoded(tokenizer, ids)),
        "tokens": len(ids),
        "position": position,
        "tools": tool_names(schemas),
    }


def _explained_decision(adapter: Explained, decision: Decision, states: torch.Tensor) -> dict[str, Any]:
    """What router and probes say of the (L, 1, D) states, and the gate that follows."""
    probabilities = adapter.router.predict_proba(states[adapter.config.layer])[0].tolist()
    read = torch.cat([states[layer] for layer in adapter.config.reading], dim=1)
    probes = adapter.probes.of(decision.state)
    return {
        "domain": decision.domain,
        "domains": dict(zip(adapter.router.domains, probabilities, strict=True)),
        "p_tool": decision.p_tool,
        "p_by_domain": {name: float(probes.p_tool(read, name)[0]) for name in adapter.config.domains},
        "tau": adapter.config.rule(decision.state).tau,
        "gate": decision.gate,
        "action": decision.action,
        "abstains": adapter.config.abstains,
    }


def _explained_bias(config: ASAConfig, gate: int) -> float | str:
    """What the gate adds to the logits of the openings, as the explanation's plain JSON type."""
    lift = gate * config.opening_bias if gate else 0.0
    return lift if math.isfinite(lift) else str(lift)


def _explained_step(config: ASAConfig, decision: Decision, norm: float) -> dict[str, Any]:
    """What is added, in the residual's own units and as a share of the state's norm."""
    rule = config.rule(decision.state)
    alpha = rule.alpha if decision.gate >= 0 or rule.alpha_down is None else rule.alpha_down
    if decision.gate and (config.cap or rule.asks_readiness):
        # A cap shortens the step, and readiness may take another one: its length is what the controller made of it.
        alpha = decision.relative_step * norm / config.residual_norm
    absolute = 0.0 if config.action == "bias" else decision.gate * (alpha * config.residual_norm)
    return {
        "layer": config.layer,
        "alpha": alpha,
        "absolute": absolute,
        "state_norm": norm,
        "relative": absolute / norm if norm else 0.0,
    }


def _explained_answer(
    model: Any, ids: torch.Tensor, openings: list[int], settings: dict[str, Any]
) -> tuple[list[int], torch.Tensor]:
    """The token ids of the answer to a (1, T) prompt, and (O,) probabilities that its first is one of O openings."""
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    first = output.logits[0][0].float().softmax(dim=0)
    return output.sequences[0, ids.shape[1] :].tolist(), first[openings]


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    """Token ids as text, special tokens included."""
    return str(tokenizer.decode(ids, skip_special_tokens=False))


def _explained_token(token: str) -> str:
    """A token as it is, or in quotation marks where it is punctuation that a reader could take for ours."""
    return token if token.startswith("<") or token.isalnum() else repr(token)


def _explained_tail(text: str) -> str:
    """The last lines of an explained prompt, or the last characters of a long line."""
    tail = text[-_TAIL_CHARACTERS:]
    return tail.split("\n", 1)[1] if len(tail) < len(text) and "\n" in tail.rstrip() else tail


def _bare_states(model: Any, ids: torch.Tensor, config: ASAConfig) -> torch.Tensor:
    """(L, 1, D) states of the bare model at the last token of a (1, T) prompt, after each block."""
    if is_engine_model(model):
        return model.last_states(ids.tolist(), lambda _: None)
    blocks = decoder_blocks(model, config.layer_path)
    return last_token_states(model, blocks, ids, torch.ones_like(ids), SharedPrefix())


def _judged_answer(ids: list[int], parser: ToolCallParser, schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer in an explanation, with its calls, and whether they fit the tools."""
    text = parser.text(ids)
    calls = [dataclasses.asdict(call) for call in parser.parse(text, schemas)]
    return {"answer": text, **parser.check(text, schemas), "calls": calls}


def _wrapped_fact(text: str, width: int, indent: str, hanging: str = "  ") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + hanging) or [indent]


def _quoted_answer(text: str, width: int) -> list[str]:
    """An answer as an explanation shows it, set off at the left, its own lines kept."""
    return [
        f"  | {part}".rstrip()
        for line in text.splitlines() or [""]
        for part in AnswerWrapper(width - 4, replace_whitespace=False, drop_whitespace=False).wrap(line) or [""]
    ]
