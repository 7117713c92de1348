import json
from typing import Any

import pytest
from conftest import fitted_adapter, random_model, traces

from asa_adapter import ASAAdapter, ToolCallParser
from asa_adapter.evaluate import Evaluation
from asa_adapter.trainer import ASATrainer, ASATrainingArguments


@pytest.fixture(scope="module")
def rows(splits: Any) -> list[dict[str, Any]]:
    return list(splits["valid"])[::8]


@pytest.fixture(scope="module")
def evaluation(tiny_lfm2: Any) -> Evaluation:
    return Evaluation(*tiny_lfm2, ToolCallParser("lfm2"), max_new_tokens=24, batch_size=6, progress=False)


def test_batched_answers_are_those_of_each_prompt_alone(
    tiny_lfm2: Any, rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    model, tokenizer = tiny_lfm2
    alone = []
    for row in rows:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["instruction"]}],
            tools=row["tools"],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        alone.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))
    batched = [answer.replace(tokenizer.pad_token, "") for answer in evaluation.answers(rows)]
    assert batched == alone


def written(call: dict[str, Any]) -> str:
    inside = ", ".join(f"{name}={json.dumps(value)}" for name, value in call["arguments"].items())
    return f"<|tool_call_start|>[{call['name']}({inside})]<|tool_call_end|>"


def test_metrics_are_counted_from_the_answers(rows: list[dict[str, Any]], evaluation: Evaluation) -> None:
    broken = "<|tool_call_start|>[calculator("
    answers = [written(row["gold_calls"][0]) if row["label"] else broken for row in rows]
    metrics = evaluation.metrics(rows, answers)
    needed = sum(row["label"] for row in rows)
    assert (metrics["tp"], metrics["fp"], metrics["fn"], metrics["tn"]) == (needed, len(rows) - needed, 0, 0)
    assert metrics["validity"]["format"] == pytest.approx(needed / len(rows))
    assert metrics["validity"]["success_recall"] == 1.0
    assert metrics["validity"]["success_precision"] == pytest.approx(needed / len(rows))


def test_a_steered_model_is_refused(tiny_lfm2: Any) -> None:
    model = random_model()
    with fitted_adapter().attach(model):
        with pytest.raises(ValueError, match=r"has an adapter attached; remove\(\) it first"):
            Evaluation(model, tiny_lfm2[1], ToolCallParser("lfm2"))
    Evaluation(model, tiny_lfm2[1], ToolCallParser("lfm2"))


def test_an_abstaining_adapter_compares_equal(
    tiny_lfm2: Any, splits: Any, rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    small = {name: list(part)[::4] for name, part in splits.items()}
    arguments = ASATrainingArguments(
        layers=(6,), alphas=(1e-6,), taus=(0.5,), betas=(1.0,), Cs=(0.1,), max_new_tokens=8, progress=False
    )
    adapter: ASAAdapter = ASATrainer(*tiny_lfm2, small, arguments).train()
    assert adapter.config.alpha == 0
    results = evaluation.compare(rows, adapter)
    assert results["base"] == results["asa"]
    assert traces(tiny_lfm2[0]) == []
