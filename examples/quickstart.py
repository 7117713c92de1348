"""The whole path on the shipped tiny LFM2 and the shipped data: fit, measure, save, load, steer, take off.

python examples/quickstart.py [OUTPUT_FOLDER]
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, ASATrainer, Decision, ToolCallParser, load_splits
from asa_adapter.files import make_writable_folder
from asa_adapter.hub import metrics_table

HERE = Path(__file__).resolve().parent
# For the model card: what only the one who fits an adapter knows.
METADATA = {
    "license": "apache-2.0",
    "language": "en",
    "labels": "their author, by the rules in the README of examples/data",
    "data_license": "Apache-2.0",
}


def answer(model: Any, tokenizer: Any, prompt: str, tools: list[dict[str, Any]]) -> str:
    """The model's greedy answer, by its own generate(): steered exactly when an adapter is attached."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tools=tools,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))


def is_right(parser: ToolCallParser, answer: str, row: dict[str, Any]) -> bool:
    """Whether an answer calls nothing where nothing is needed, else what the row's gold calls are, to the letter."""
    if not row["label"]:
        return not parser.triggered(answer)
    called = [{"name": call.name, "arguments": call.arguments} for call in parser.parse(answer, row["tools"])]
    return called == row["gold_calls"]


def corrected_prompts(
    model: Any, tokenizer: Any, adapter: ASAAdapter, rows: list[dict[str, Any]]
) -> dict[str, tuple[dict[str, Any], str, str, Decision]]:
    """A lazy prompt and an over-eager one: rows that the bare model gets wrong and the steered one gets right.

    To a lazy prompt the steered model makes the very call that the row asks for.
    """
    parser = ToolCallParser.from_tokenizer(tokenizer)
    found: dict[str, tuple[dict[str, Any], str, str, Decision]] = {}
    for row in rows:
        kind = "lazy" if row["label"] else "over-eager"
        if kind in found:
            continue
        base = answer(model, tokenizer, row["instruction"], row["tools"])
        if parser.triggered(base) == bool(row["label"]):
            continue
        with adapter.attach(model, tokenizer=tokenizer) as steering:
            steered = answer(model, tokenizer, row["instruction"], row["tools"])
            decision = steering.decisions[0]
        if is_right(parser, steered, row):
            found[kind] = (row, base, steered, decision)
        if len(found) == 2:
            break
    return found


def main(output: Path) -> dict[str, Any]:
    """Runs everything and returns what it measured."""
    try:
        make_writable_folder(output)  # now, not behind minutes of work
    except OSError as error:
        raise SystemExit(f"error: {error}") from error
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # the tensors are so small that waiting for a second thread costs more than it gives
    tokenizer = AutoTokenizer.from_pretrained(HERE / "tiny_lfm2")
    model = AutoModelForCausalLM.from_pretrained(HERE / "tiny_lfm2", dtype=torch.float32)
    splits = load_splits(HERE / "data")

    trainer = ASATrainer(model, tokenizer, splits)
    fitted = trainer.train()
    results = trainer.evaluate("test")
    trainer.report["metadata"] = METADATA
    fitted.save_pretrained(output)
    print(f"\n{fitted}\n\nTEST, {results['base']['n']} prompts\n{metrics_table(results)}")
    print(f"fpr: of the prompts without need, the share that got a call\n\nsaved in {output}")
    picture = output / "plots" / "before_and_after.png"
    print(f"drawn in {picture}" if picture.is_file() else 'not drawn: pictures need pip install ".[plots]"')

    adapter = ASAAdapter.from_pretrained(output)
    shown = corrected_prompts(model, tokenizer, adapter, list(splits["test"]))
    for kind, (row, base, steered, decision) in shown.items():
        print(f"\n{kind}: {row['instruction']}\n  base:    {base}\n  steered: {steered}\n  {decision}")
        removed = answer(model, tokenizer, row["instruction"], row["tools"])
        print(f"  adapter removed, base answer is back: {removed == base}")
    return {"results": results, "shown": shown, "fitted": fitted, "adapter": adapter, "trainer": trainer}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("output", nargs="?", default="out/tiny-lfm2-asa", help="folder to save the adapter in")
    main(Path(arguments.parse_args().output))
