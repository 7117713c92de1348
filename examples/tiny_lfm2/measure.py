"""Print what the tiny LFM2 knows and how it acts, on TEST: ``python measure.py [--model DIR]``."""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import Probes, ToolCallParser, load_splits
from asa_adapter.card import markdown_table
from asa_adapter.evaluate import Evaluation
from asa_adapter.metrics import auc
from asa_adapter.states import collect_hidden_states

HERE = Path(__file__).resolve().parent
STRENGTHS = (0.001, 0.01, 0.1, 1.0)


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE, help="folder of the model (default: this folder)")
    folder = parser.parse_args().model
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    splits = {name: list(rows) for name, rows in load_splits(HERE.parent / "data").items()}

    evaluation = Evaluation(model, tokenizer, ToolCallParser("lfm2"))
    metrics = evaluation.metrics(splits["test"], evaluation.answers(splits["test"]))
    print(markdown_table({"all": metrics, **metrics["per_domain"]}))
    print({name: round(share, 3) for name, share in metrics["validity"].items()})

    states = {
        name: collect_hidden_states(model, tokenizer, splits[name]).states for name in ("train", "valid", "test")
    }
    labels = {name: np.array([row["label"] for row in rows]) for name, rows in splits.items()}
    domains = [row["domain"] for row in splits["train"]]
    print("\n| layer | kind | AUC on TEST |\n|---|---|---:|")
    for layer, kind in enumerate(model.config.layer_types):
        at = {name: tensor[layer] for name, tensor in states.items()}
        probes = [Probes.fit(at["train"], labels["train"], domains, C) for C in STRENGTHS]
        best = max(probes, key=lambda probe: auc(labels["valid"], probe.p_tool(at["valid"])))
        print(f"| {layer} | {kind} | {auc(labels['test'], best.p_tool(at['test'])):.3f} |")


if __name__ == "__main__":
    main()
