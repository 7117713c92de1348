"""The shipped model: its training text, its card, its template, and one step of its training."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from conftest import DATA, ROOT, TINY_LFM2, load_script


@pytest.fixture(scope="module")
def corpus() -> Any:
    return load_script(TINY_LFM2 / "corpus.py")


def rows_of(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_training_text_leaves_the_evaluation_instructions_out(corpus: Any) -> None:
    splits = ("cal", "train", "valid", "test")
    barred = frozenset(corpus.normalise(row["instruction"]) for split in splits for row in rows_of(split))
    source = corpus.Corpus(3, barred)
    drawn = {corpus.normalise(source.draw().text) for _ in range(3000)}
    assert len(drawn) > 1000
    assert not drawn & barred


def test_the_weights_stay_small() -> None:
    assert (TINY_LFM2 / "model.safetensors").stat().st_size <= 7_500_000


def test_the_template_renders_tools_as_lfm25_does(tiny_lfm2: Any) -> None:
    _, tokenizer = tiny_lfm2
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    tools = [{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]
    text = tokenizer.apply_chat_template(chat, tools=tools, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|startoftext|><|im_start|>system\nBe kind.\n"
        'List of tools: [{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]<|im_end|>\n'
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    for marker in ("<|tool_call_start|>", "<|tool_call_end|>"):
        assert len(tokenizer.encode(marker, add_special_tokens=False)) == 1
        assert tokenizer.convert_tokens_to_ids(marker) in tokenizer.all_special_ids


def test_a_tool_result_in_the_history_does_not_break_the_model(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    call = '<|tool_call_start|>[calculator(expression="48713 * 9264")]<|tool_call_end|>'
    chat = [
        {"role": "user", "content": "how much is 48713 times 9264"},
        {"role": "assistant", "content": call},
        {"role": "tool", "content": "451277232"},
    ]
    inputs = tokenizer.apply_chat_template(
        chat,
        tools=json.loads((DATA / "tools.json").read_text()),
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    reply = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert reply.endswith("<|im_end|>")
    assert "<|tool_call_start|>" not in reply


def test_the_models_card_states_what_its_script_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure.py"])
    load_script(TINY_LFM2 / "measure.py").main()
    measured = table_rows(capsys.readouterr().out)
    stated = table_rows((TINY_LFM2 / "README.md").read_text(encoding="utf-8"))
    assert len(measured) == 5 + 8
    for name, numbers in measured.items():
        # Another processor rounds differently, and a few of the answers sit on the edge.
        assert stated[name] == pytest.approx(numbers, abs=0.05), name


def table_rows(text: str) -> dict[str, list[float]]:
    """The rows of Markdown tables whose last cell has three decimals: their first cell, and all such cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    decimals = re.compile(r"\d\.\d{3}")
    return {row[0]: [float(c) for c in row if decimals.fullmatch(c)] for row in rows if decimals.fullmatch(row[-1])}


def test_one_step_of_training_saves_a_model_that_loads(tmp_path: Path) -> None:
    words = [sys.executable, str(TINY_LFM2 / "train.py"), "--steps", "1", "--output", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    shipped = transformers.AutoConfig.from_pretrained(TINY_LFM2)
    for name in ("hidden_size", "layer_types", "vocab_size"):
        assert getattr(model.config, name) == getattr(shipped, name)
