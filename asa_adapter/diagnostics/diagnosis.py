"""`diagnose`: whether a model that does not call its tools needs steering, or a mended prompt or parser first."""

import textwrap
from collections.abc import Sequence
from typing import Any

from torch import nn

from asa_adapter.diagnostics.checks import ON_ANSWERS, ON_PROMPTS, ON_THE_MODEL, ON_THE_TOKENIZER
from asa_adapter.diagnostics.patient import PLAIN_TOOLS, Finding, Patient
from asa_adapter.modeling.residual import refuse_parallel
from asa_adapter.notations.schemas import Tools, tool_schemas


def diagnose(
    model: nn.Module, tokenizer: Any, *, tools: Tools | None = None, max_new_tokens: int = 64
) -> list[Finding]:
    """Checks what must hold before steering can help, in seconds on a small model.

    Args:
        model: a causal language model; it is not changed.
        tokenizer: its tokenizer.
        tools: the tools that prompts offer, JSON schemas or Python functions; three plain ones where None.
        max_new_tokens: longest answer of the model to requests that ask for a tool.

    Returns:
        One finding for each check that could be made; an exception in one check does not stop the others.

    Raises:
        IncompatibleModelError: the model is a wrapper such as `DataParallel`; pass `model.module`.
    """
    refuse_parallel(model)
    patient = Patient(model, tokenizer, tool_schemas(tools) or PLAIN_TOOLS, max_new_tokens)
    findings = [check(patient) for check in ON_THE_TOKENIZER]
    if all(finding.ok for finding in findings):
        findings += [check(patient) for check in ON_PROMPTS]
    findings += [check(patient) for check in ON_THE_MODEL]
    if patient.can_answer(findings):
        findings += [check(patient) for check in ON_ANSWERS]
    return findings


def findings_table(findings: Sequence[Finding], width: int = 80) -> str:
    """The findings as a table for a terminal, in lines of at most `width` characters."""
    lines = []
    for finding in findings:
        head = f"{'ok' if finding.ok else '!!'}  {finding.name:<14}"
        hanging = " " * len(head)
        lines += textwrap.wrap(f"{head}{finding.meaning}", width, subsequent_indent=hanging)
        if finding.cure:
            lines += textwrap.wrap(f"cure: {finding.cure}", width, initial_indent=hanging, subsequent_indent=hanging)
    wrong = sum(not finding.ok for finding in findings)
    return "\n".join([*lines, f"{len(findings)} checks, {wrong} with something to look at"])
