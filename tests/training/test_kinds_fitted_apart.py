"""A training on rows of both kinds of state: each is fitted by itself, and may have a rule of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.matching.state_kinds import kind_of

CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "clock", "arguments": {}}}],
}


def both_kinds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as they are, and each again behind the result of a first call."""
    again = []
    for row in rows:
        request = {"role": "user", "content": row["instruction"]}
        messages = [request, CALL, {"role": "tool", "content": "12:30"}]
        rest = {name: value for name, value in row.items() if name != "instruction"}
        again.append({**rest, "id": f"{row['id']}-after", "messages": messages})
    return [*rows, *again]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # few rows, of which two each belong together
def test_both_kinds_are_fitted_told_apart_and_reported(
    tiny_lfm2: tuple[Any, Any], few_rows: Path, tmp_path: Path
) -> None:
    splits = {}
    tools = json.loads((few_rows / "tools.json").read_text("utf-8"))
    for name in ("cal", "train", "valid", "test"):
        rows = [json.loads(line) for line in (few_rows / f"{name}.jsonl").read_text("utf-8").splitlines()]
        splits[name] = both_kinds(rows)
    args = ASATrainingArguments(
        layers=(4, 6),
        alphas=(0.5, 1.0),
        taus=(0.5, 0.7),
        betas=(1.0,),
        probes=("pooled",),
        read_layers=(1,),
        Cs=(0.1,),
        finalists=3,
        resamples=100,
        max_new_tokens=8,
        vary_tools=False,
        policies="all",
        progress=False,
        output_dir=tmp_path,
    )
    trainer = ASATrainer(*tiny_lfm2, splits, args, tools)
    adapter = trainer.train()
    report = trainer.report
    assert adapter.config.states == ("first", "after_result")
    assert set(adapter.config.state_marks) == {"first", "after_result"}
    assert set(adapter.probes.by_state_) == set(adapter.vectors.by_state) == {"first", "after_result"}
    assert report["states"]["fitted"] == ["first", "after_result"]
    assert report["states"]["rows"]["train"] == {"after_result": 24, "first": 24}
    facts = report["layers"]["6"]["states"]
    assert set(facts["after_result"]) == {"own_probe", "own_direction", "out_of_fold_auc", "probe_auc"}
    tried = [finalist.get("by_state") for finalist in report["valid"]["finalists"]]
    assert None in tried
    assert {"first", "after_result"} in [set(rules) for rules in tried if rules]
    thresholds = {"ready_below", "ready_above", "domain_alpha", "route"}
    assert any(thresholds <= set(rules["first"]) for rules in tried if rules)
    assert set(report["policies"]) == {"gate", "readiness"}
    assert thresholds <= set(report["policies"]["readiness"]["by_state"]["after_result"])
    loaded = ASAAdapter.from_pretrained(tmp_path)
    assert loaded.digest() == adapter.digest()
    model, tokenizer = tiny_lfm2
    row = next(row for row in splits["test"] if kind_of(row) == "after_result")
    inputs = tokenizer.apply_chat_template(
        row["messages"], tools=tools, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with loaded.attach(model, tokenizer=tokenizer) as steering:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert [(d.state, d.reason) for d in steering.decisions] == [("after_result", "")]
