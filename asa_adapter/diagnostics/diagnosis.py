"""`diagnose`: whether a model that does not call its tools needs steering, or a mended prompt or parser first."""

import textwrap
from collections.abc import Sequence
from typing import Any

from torch import nn

from asa_adapter.data.prompts import with_chat_template
from asa_adapter.diagnostics.checks import ON_ANSWERS, ON_PROMPTS, ON_THE_MODEL, ON_THE_TOKENIZER, not_made
from asa_adapter.diagnostics.patient import PLAIN_TOOLS, Finding, Patient
from asa_adapter.modeling.residual_stream import refuse_parallel
from asa_adapter.notations.tool_schemas import Tools, tool_schemas


def diagnose(
    model: nn.Module,
    tokenizer: Any,
    *,
    tools: Tools | None = None,
    max_new_tokens: int = 64,
    chat_template: str | None = None,
    tool_call_format: str | None = None,
    tool_call_start: str | None = None,
    tool_call_end: str | None = None,
) -> list[Finding]:
    """Checks what must hold before steering can help, in seconds on a small model.

    Args:
        model: a causal language model; it is not changed.
        tokenizer: its tokenizer.
        tools: the tools that prompts offer, JSON schemas or Python functions; three plain ones where None.
        max_new_tokens: longest answer of the model to requests that ask for a tool.
        chat_template: renders the prompts in place of the tokenizer's own, as in `ASATrainingArguments`.
        tool_call_format: name of the format of the model's calls, if it is not found by itself, likewise.
        tool_call_start: the marker that opens a call, if it differs from the format's.
        tool_call_end: the marker that closes it.

    Returns:
        One finding for each check, also for those that could not be made; an exception in one check does not stop the
        others. `readiness` says in words what they come to.

    Raises:
        IncompatibleModelError: the model is a wrapper such as `DataParallel`; pass `model.module`.
    """
    refuse_parallel(model)
    named = (tool_call_format, tool_call_start, tool_call_end)
    offered = tool_schemas(tools) or PLAIN_TOOLS
    patient = Patient(model, with_chat_template(tokenizer, chat_template), offered, max_new_tokens, named)
    findings = [check(patient) for check in ON_THE_TOKENIZER]
    failed = [finding for finding in findings if not finding.ok]
    findings += [not_made(check, failed) if failed else check(patient) for check in ON_PROMPTS]
    findings += [check(patient) for check in ON_THE_MODEL]
    if not failed:
        failed = patient.missing_for_answers(findings)
    return [*findings, *(not_made(check, failed) if failed else check(patient) for check in ON_ANSWERS)]


def readiness(findings: Sequence[Finding]) -> str:
    """The diagnosis in words, by its findings: ready, ready but, or not ready, with the reason and the cure."""
    blockers = [finding for finding in findings if finding.blocks]
    if blockers:
        first = blockers[0]
        others = f". Then look at {', '.join(finding.name for finding in blockers[1:])}" if blockers[1:] else ""
        return f"not ready: {first.meaning}; {first.cure}{others}"
    doubts = [finding.name for finding in findings if finding.checked and not finding.ok]
    said = f"ready, but look at {', '.join(doubts)}" if doubts else "ready: an adapter can be fitted"
    if doubts == ["habit"]:  # a trainer finds that by itself
        said = "ready: an adapter can be fitted; look at habit before you serve the model"
    unknown = [finding.name for finding in findings if not finding.checked]
    return f"{said}; not known: {', '.join(unknown)}" if unknown else said


def findings_table(findings: Sequence[Finding], width: int = 80) -> str:
    """The findings as a table for a terminal, in lines of at most `width` characters, with the `readiness`."""
    lines = []
    for finding in findings:
        mark = "ok" if finding.ok else "!!" if finding.checked else "--"
        head = f"{mark}  {finding.name:<15}"
        hanging = " " * len(head)
        lines += textwrap.wrap(f"{head}{finding.meaning}", width, subsequent_indent=hanging)
        if finding.cure:
            lines += textwrap.wrap(f"cure: {finding.cure}", width, initial_indent=hanging, subsequent_indent=hanging)
    wrong = sum(finding.checked and not finding.ok for finding in findings)
    unknown = sum(not finding.checked for finding in findings)
    count = f"{len(findings)} checks, {wrong} with something to look at"
    lines.append(f"{count}, {unknown} that could not be made" if unknown else count)
    return "\n".join([*lines, *textwrap.wrap(readiness(findings), width)])
