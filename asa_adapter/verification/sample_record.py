"""What was seen of the samples, and how an adapter's report keeps it under "samples"."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asa_adapter.report import Report
from asa_adapter.verification.samples import Sample

ANSWER_TOKENS = 16


@dataclass(frozen=True)
class SeenSample:
    """What one prompt came to.

    Attributes:
        prompt: digest of its token ids.
        domain: the domain that the router took.
        p_tool: the probability that a tool is needed.
        gate: the gate, -1, 0 or 1.
        steered: the answer's first token ids with the adapter, greedily, as far as it goes.
        bare: the same without it.
        state: kind of state in which the prompt ends; "" where it is not known.
        reason: why the prompt was left alone; "" where it was not, or where that is not known.
    """

    prompt: str
    domain: str
    p_tool: float
    gate: int
    steered: list[int]
    bare: list[int]
    state: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Where:
    """What answered.

    Attributes:
        engine: its name and version.
        device: such as "cpu", or the name of a GPU.
        dtype: such as "float32".
        quantised: how the weights are packed; "" where they are plain numbers.
    """

    engine: str
    device: str
    dtype: str
    quantised: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.engine, self.device, self.dtype, self.quantised)))


@dataclass(frozen=True)
class SampleRecord:
    """Samples, and what they came to in one place.

    Attributes:
        samples: the samples.
        seen: what each came to.
        where: what answered.
    """

    samples: Sequence[Sample]
    seen: Sequence[SeenSample]
    where: Where

    def plain(self) -> dict[str, Any]:
        """As JSON, for the report."""
        rows = []
        for sample, seen in zip(self.samples, self.seen, strict=True):
            tools = {} if sample.tools is None else {"tools": json.dumps(sample.tools, ensure_ascii=False)}
            rows.append({"chat": json.dumps(sample.messages, ensure_ascii=False), **tools, **asdict(seen)})
        return {**asdict(self.where), "rows": rows}

    @classmethod
    def of(cls, report: Mapping[str, Any] | None) -> "SampleRecord | None":
        """What a report keeps; None if it keeps nothing, or nothing sound."""
        found = Report.read(report).samples
        if not found.get("rows"):
            return None
        names = ("engine", "device", "dtype", "quantised")
        rows = found["rows"]
        try:
            samples = [_kept_sample(row) for row in rows]
        except (ValueError, RecursionError):
            return None
        later = {"state": "", "reason": ""}  # which earlier versions do not keep
        seen = [SeenSample(**{name: (later | row)[name] for name in SeenSample.__dataclass_fields__}) for row in rows]
        return cls(samples, seen, Where(*(str(found.get(name, "")) for name in names)))


def _kept_sample(row: Mapping[str, Any]) -> Sample:
    """The sample that a record keeps in a row."""
    messages = json.loads(row["chat"])
    tools = json.loads(row["tools"]) if row.get("tools") else None
    if not isinstance(messages, list) or not isinstance(tools, list | None):
        raise ValueError("expected lists")
    return Sample(messages, tools)
