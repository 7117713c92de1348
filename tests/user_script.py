"""The public API as a user writes it with a strict type checker; never run, only checked (test_packaging.py)."""

from pathlib import Path
from typing import Any

from asa_adapter import (
    AdapterDownloadError,
    AdapterFormatError,
    ASAAdapter,
    ASAConfig,
    ASATrainer,
    ASATrainingArguments,
    Decision,
    IncompatibleModelError,
    Probes,
    Router,
    SteeringHandle,
    SteeringVectors,
    ToolCall,
    ToolCallParser,
    __version__,
    diagnose,
    label_by_trying,
    load_splits,
)


def fit(model: Any, tokenizer: Any, data: Path) -> ASAAdapter:
    """Fits, measures and saves."""
    arguments = ASATrainingArguments(layers=[4, 6], alphas=[0.5, 1.0], max_fpr=0.05, output_dir=data / "out")
    trainer = ASATrainer(model, tokenizer, load_splits(data), arguments)
    adapter: ASAAdapter = trainer.train()
    f1: float = trainer.evaluate("test")["asa"]["f1"]
    folder: Path = adapter.save_pretrained(data / "adapter")
    print(f"{__version__}: F1 {f1:.3f}, in {folder}")
    return adapter


def label(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> list[int]:
    """Labels rows by what the model can do alone."""
    return [int(row["label"]) for row in label_by_trying(model, tokenizer, rows, n=3, k=2)]


def steer(model: Any, tokenizer: Any, name: str, **inputs: Any) -> list[Decision]:
    """Steers one call of generate()."""
    try:
        adapter = ASAAdapter.from_pretrained(name, revision="main", local_files_only=True)
        handle: SteeringHandle = adapter.attach(model, tokenizer=tokenizer)
    except (AdapterDownloadError, AdapterFormatError, IncompatibleModelError) as error:
        raise SystemExit(str(error)) from error
    with handle, handle.disabled():
        model.generate(**inputs)
    handle.alpha = 0.5
    gates: set[int] = {decision.gate for decision in handle.decisions}
    print(gates)
    return handle.decisions


def calls(tokenizer: Any, text: str) -> list[ToolCall]:
    """Reads an answer's calls."""
    parser = ToolCallParser.from_tokenizer(tokenizer)
    names: list[str] = [call.name for call in parser.parse(text)]
    print(names, parser.triggered(text))
    return ToolCallParser("lfm2").parse(text)


def by_hand(states: list[list[float]], labels: list[int], domains: list[str]) -> ASAAdapter:
    """Builds an adapter from states of one's own."""
    config = ASAConfig(hidden_size=len(states[0]), num_layers=8, layer=6, domains=("code", "math"), tau=0.7)
    vectors = SteeringVectors.fit(states, labels, domains, config.domains)
    return ASAAdapter(config, vectors, Router.fit(states, domains), Probes.fit(states, labels, domains))


def look(model: Any, tokenizer: Any, adapter: ASAAdapter) -> str:
    """What is wrong with prompts and parser, and what led to one decision."""
    faults: list[str] = [finding.meaning for finding in diagnose(model, tokenizer) if not finding.ok]
    explanation: dict[str, Any] = adapter.explain(model, tokenizer, "What is 17 x 23?")
    return f"{faults} {explanation['p_tool']:.3f}"
