"""What was seen in two places, compared: decisions, first tokens and answers, and a table to paste into an issue."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.summary.markdown import escaped, table
from asa_adapter.verification.sample_record import SampleRecord, SeenSample

NEAR = 0.01  # a p this close to a threshold may fall on either side of it


@dataclass(frozen=True)
class ComparedPrompt:
    """One prompt in both places.

    Attributes:
        request: what the user says last.
        expected: what was seen there.
        found: what was seen here.
        near: whether the expected p is so close to a threshold that the gate says nothing.
        answers_count: whether the whole answers must be equal, and not their first tokens alone.
    """

    request: str
    expected: SeenSample
    found: SeenSample
    near: bool
    answers_count: bool

    @property
    def same_prompt(self) -> bool:
        """Whether the same token ids were asked."""
        return self.expected.prompt == self.found.prompt

    @property
    def same_decision(self) -> bool:
        """Whether the gate is the same, and, where it is open, the domain."""
        a, b = self.expected, self.found
        return a.gate == b.gate and (a.gate == 0 or a.domain == b.domain)

    @property
    def same_first(self) -> bool:
        """Whether the steered answer begins with the same token."""
        return self.expected.steered[:1] == self.found.steered[:1]

    @property
    def same_answer(self) -> bool:
        """Whether the steered answer is the same."""
        return self.expected.steered == self.found.steered

    @property
    def same_bare(self) -> bool:
        """Whether the bare model answers alike in both places, as far as answers count."""
        if self.answers_count:
            return self.expected.bare == self.found.bare
        return self.comparable

    @property
    def comparable(self) -> bool:
        """Whether the bare model begins alike in both places, without which steered answers say nothing."""
        return self.expected.bare[:1] == self.found.bare[:1]

    @property
    def differs(self) -> str:
        """What differs by the adapter, in a word; "" where nothing does, or nothing can be compared."""
        if not self.same_prompt:
            return "prompt"
        if not self.same_decision:
            return "" if self.near else "decision"
        if not self.comparable:
            return ""
        if not self.same_first:
            return "first token"
        return "answer" if self.answers_count and self.same_bare and not self.same_answer else ""


@dataclass(frozen=True)
class TwoRecords:
    """Two records of the same samples.

    Attributes:
        adapter: what the adapter is called.
        model: what the model is called.
        digest: that of the adapter.
        lines: the prompts.
        expected: what answered there.
        found: what answered here.
        seconds: of a step, by how the model was run.
        versions: of Python, packages and the system.
    """

    adapter: str
    model: str
    digest: str
    lines: Sequence[ComparedPrompt]
    expected: str
    found: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether nothing differs by the adapter, and the answers to some prompt could be compared."""
        return self.comparable > 0 and not any(line.differs for line in self.lines)

    @property
    def comparable(self) -> int:
        """Number of prompts whose answers could be compared."""
        return sum(line.comparable for line in self.lines)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        flags = (
            "same_prompt",
            "same_decision",
            "same_first",
            "same_answer",
            "same_bare",
            "comparable",
            "near",
            "differs",
        )
        rows = [
            {"request": line.request, "expected": asdict(line.expected), "found": asdict(line.found)}
            | {name: getattr(line, name) for name in flags}
            for line in self.lines
        ]
        names = ("equal", "comparable", "adapter", "model", "digest", "expected", "found", "seconds", "versions")
        return {**{name: getattr(self, name) for name in names}, "rows": rows}

    def markdown(self) -> str:
        """A table of facts, one of prompts, and what they come to."""
        milliseconds = ", ".join(f"{name} {1000 * value:.2f} ms" for name, value in self.seconds.items())
        facts = {
            "adapter": f"{self.adapter} ({self.digest[:12]})",
            "model": self.model,
            "here": self.found,
            "compared with": self.expected,
            "a step": milliseconds,
            "versions": ", ".join(f"{name} {value}" for name, value in self.versions.items()),
        }
        head = table(("", ""), [(name, escaped(value)) for name, value in facts.items() if value], numbers=0)
        names = ("prompt", "domain", "p there", "p here", "gate", "first token", "answer", "bare answer", "")
        return f"{head}\n\n{table(names, [_compared_row(line) for line in self.lines], numbers=0)}\n\n{self.verdict()}"

    def verdict(self) -> str:
        """What the comparison comes to, in a sentence or two."""
        n = len(self.lines)
        counts = {
            "decisions": sum(line.same_decision for line in self.lines),
            "first tokens": sum(line.same_first for line in self.lines),
            "answers": sum(line.same_answer for line in self.lines),
            "answers of the bare model": sum(line.expected.bare == line.found.bare for line in self.lines),
        }
        told = ", ".join(f"{count} of {n} {what}" for what, count in counts.items())
        both = [(line.expected, line.found) for line in self.lines]
        apart = max((abs(a.p_tool - b.p_tool) for a, b in both if not (a.reason or b.reason)), default=0.0)
        differing = [line.differs for line in self.lines if line.differs]
        which = ", ".join(f"{differing.count(what)} by the {what}" for what in dict.fromkeys(differing))
        end = f"**{len(differing)} of {n} prompts differ**: {which}" if differing else "No difference by the adapter"
        if not differing and not self.comparable:
            end = "**Nothing is shown**"
        if self.comparable < n:
            end += f"; {self.comparable} of {n} could be compared, as the bare model begins the others otherwise"
        return f"Equal: {told}; p differs by {apart:.4f} at most. {end}."


def compared_records(config: ASAConfig, expected: SampleRecord, found: SampleRecord) -> list[ComparedPrompt]:
    """What two records of the same samples say of each prompt.

    Args:
        config: the adapter's.
        expected: what was seen where the adapter was fitted, or in transformers.
        found: what was seen here.
    """
    exact = expected.where.dtype == found.where.dtype == "float32"
    lines = []
    for sample, there, here in zip(found.samples, expected.seen, found.seen, strict=True):
        tau = config.rule(there.state or here.state).tau
        off = min(abs(there.p_tool - threshold) for threshold in (tau, 1 - tau))
        near = off <= NEAR and not (there.reason or here.reason)
        lines.append(ComparedPrompt(str(sample.messages[-1].get("content", "")), there, here, near, exact))
    return lines


def _compared_row(line: ComparedPrompt) -> tuple[str, ...]:
    """A prompt's row in the table of two records."""
    there, here = line.expected, line.found
    answers = [_there_and_here(same, "same", "other") for same in (line.same_answer, there.bare == here.bare)]
    return (
        escaped(line.request[:60]),
        escaped(_there_and_here(there.domain == here.domain, there.domain, here.domain)),
        *("left alone" if seen.reason else f"{seen.p_tool:.4f}" for seen in (there, here)),
        _there_and_here(there.gate == here.gate, str(there.gate), str(here.gate)),
        "same" if line.same_first else "other",
        *answers,
        line.differs
        or ("near a threshold" if not line.same_decision else "" if line.comparable else "not comparable"),
    )


def _there_and_here(same: bool, there: str, here: str) -> str:
    return there if same else here if there == "same" else f"{there}, here {here}"
