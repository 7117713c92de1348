"""Every causal language model of the installed transformers: built tiny, steered, and put back bit by bit.

    python tests/support/conformance.py [--only TYPE ...] [--json FILE]

A model of each type in MODEL_FOR_CAUSAL_LM_MAPPING is built from its config class with random weights; nothing is
downloaded. Outcomes:

    steered       one injection per row, at the row's last prompt token and nowhere else; removal leaves no trace
    refused       by an error of ours that says why, in fit, attach or generate; the model is as it was
    failed        neither: a fault of ours
    not built     transformers cannot make the model from a config alone, or needs a package that is not there
    no generate   the model cannot generate without us

Also checked: an adapter with alpha 0 changes no bit, fitting reads the state that is steered, and without a cache the
steered tokens are the same where the base model's are. Prompts of two tool lists, run together behind what they share,
have the states, first tokens and answers of each prompt run alone. The exit status is 1 if a type failed, or if an
outcome is not the one in EXPECTED while transformers has the version that tests/constraints.txt pins.
"""

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import argparse
import copy
import dataclasses
import functools
import io
import json
import socket
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from architectures import tiny_model
from fast_paths import differences
from models import PAD, fitted_adapter, prompts, traces
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import asa_adapter
from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.modeling.forward import evaluation_mode
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.modeling.residual_stream import decoder_blocks, hidden_size
from asa_adapter.states import last_token_states

# The tensors here are tiny: waiting for a second thread costs more than it helps.
torch.set_num_threads(1)

LENGTHS = (7, 5)
WIDEST = max(LENGTHS)
NEW_TOKENS = 6
PACKAGE = Path(asa_adapter.__file__).parent
CONSTRAINTS = (Path(__file__).parents[1] / "constraints.txt").read_text()

# Without this, transformers' own cache fails before any of our code runs.
_GENERATE: dict[str, dict[str, Any]] = {"blt": {"use_cache": False}}

# Outcomes with the pinned transformers; every type that is not named here is steered.
EXPECTED = dict.fromkeys(
    [
        "blt",
        "cpmant",
        "deepseek_v4",
        "gemma3n_text",
        "hrm_text",
        "hy_v4",
        "mllama",
        "prophetnet",
        "qwen4_exp",
        "qwen4_exp_text",
        "reformer",
        "xlm",
        "xlnet",
    ],
    "refused",
) | dict.fromkeys(
    ["gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody"], "not built"
)


@dataclasses.dataclass
class Result:
    """What became of one type."""

    model_type: str
    model_class: str
    path: str = ""
    output: str = ""
    outcome: str = ""
    reason: str = ""
    seconds: float = 0.0


@functools.cache
def _fitted(width: int) -> ASAAdapter:
    return fitted_adapter(width=width)


def adapter_for(model: Any, blocks: Any, alpha: float) -> ASAAdapter:
    """An adapter for a model's middle block, whose gate is never 0 unless alpha is."""
    fitted = _fitted(hidden_size(model))
    config = dataclasses.replace(fitted.config, num_layers=len(blocks), layer=len(blocks) // 2, alpha=alpha, tau=0.5)
    return ASAAdapter(config, fitted.vectors, fitted.router, fitted.probes)


@dataclasses.dataclass
class Run:
    """One generate() call: its tokens, the logits of every step, and a block's first output."""

    tokens: torch.Tensor
    logits: torch.Tensor
    output: Any = None

    def same(self, other: "Run") -> bool:
        return torch.equal(self.tokens, other.tokens) and torch.equal(self.logits, other.logits)


def generate(model: Any, block: Any = None, **keywords: Any) -> Run:
    """Greedy tokens behind two left-padded rows; the block is watched from behind all other hooks."""
    ids = prompts(len(LENGTHS), WIDEST)
    mask = torch.stack([(torch.arange(WIDEST) >= WIDEST - length).long() for length in LENGTHS])
    outputs: list[Any] = []
    settings: dict[str, Any] = {
        "attention_mask": mask,
        "max_new_tokens": NEW_TOKENS,
        "min_new_tokens": NEW_TOKENS,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    with ExitStack() as stack:
        if block is not None:
            hook = block.register_forward_hook(lambda _module, _args, out: outputs.append(copy.deepcopy(out)))
            stack.callback(hook.remove)
        result = model.generate(ids.masked_fill(mask == 0, PAD), **settings, **keywords)
    return Run(result.sequences, torch.stack(result.logits), outputs[0] if outputs else None)


def calibration_state(model: Any, blocks: Any) -> torch.Tensor:
    """What fitting reads of the first row, which has no padding, behind the middle block."""
    ids = prompts(len(LENGTHS), WIDEST)[:1]
    with evaluation_mode(model):
        return last_token_states(model, blocks, ids, torch.ones_like(ids), SharedPrefix())[len(blocks) // 2, 0]


def first_tensor(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def kind(output: Any, width: int) -> str:
    """A block's output, as "tensor (B, T, D)" or "tuple of 2 (B, T, D)"."""
    axes = {len(LENGTHS): "B", WIDEST: "T", width: "D"}
    shape = ", ".join(axes.get(size, str(size)) for size in first_tensor(output).shape)
    name = "tensor" if isinstance(output, torch.Tensor) else f"{type(output).__name__} of {len(output)}"
    return f"{name} ({shape})"


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def steer(model: Any, base: Run, result: Result, **keywords: Any) -> None:
    """Attaches, generates and removes; an AssertionError says what is not as it must be."""
    blocks = decoder_blocks(model)
    block = blocks[len(blocks) // 2]
    result.path = next(name for name, module in model.named_modules() if module is blocks)
    before = generate(model, block, **keywords)
    if before.output is not None:
        result.output = kind(before.output, hidden_size(model))
    with adapter_for(model, blocks, alpha=0.0).attach(model):
        expect(base.same(generate(model, **keywords)), "alpha 0 changed the answer")
    with adapter_for(model, blocks, alpha=20.0).attach(model) as handle:
        after = generate(model, block, **keywords)
        parts = handle._record.met if handle._record is not None else []
        positions = [decision.position for decision in handle.decisions]
        uncached = generate(model, **{**keywords, "use_cache": False})
    rows = [part.rows.tolist() for part in parts]
    expect(rows == [[0, 1]], f"injected into rows {rows}; expected [[0, 1]], once for each row")
    expect(positions == [WIDEST - 1] * 2, f"the decisions are for tokens {positions}; expected the last")
    moved = (first_tensor(after.output) != first_tensor(before.output)).any(dim=-1).tolist()
    expect(moved == [[False] * (WIDEST - 1) + [True]] * 2, f"moved tokens {moved}; expected the last of each row")
    expect(bool((after.logits[0] != base.logits[0]).any(dim=-1).all()), "the first step's logits did not change")
    together = differences(model, adapter_for(model, blocks, alpha=20.0))
    expect(not together, f"prompts of two tool lists, run together, have other {', '.join(together)} than each alone")
    learnt, read = calibration_state(model, blocks), parts[0].states[0]
    near = bool((learnt - read).norm() <= 1e-3 * read.norm())
    expect(near, "fitting reads another state than the one that is steered")
    if torch.equal(generate(model, **{**keywords, "use_cache": False}).tokens, base.tokens):
        expect(torch.equal(uncached.tokens, after.tokens), "other steered tokens without a cache than with one")
    else:
        result.reason = "without a cache: n/a, the base model's tokens differ"


def explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError | IncompatibleModelError):
        return text
    return f"{type(error).__name__}: {text}"


def refusal(error: Exception) -> str | None:
    """Where our own code raised an error on purpose, and its message; None if that was no purpose of ours."""
    trace = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError) or not Path(trace[-1].filename).is_relative_to(PACKAGE):
        return None
    stages = {"last_token_states": "fit", "_generate": "generate"}
    stage = next((stages[frame.name] for frame in trace if frame.name in stages), "attach")
    return f"{stage}: {explain(error)}"


def outcome_of(result: Result) -> tuple[str, str]:
    """The outcome of one type, and why; fills in the rest of the result on the way."""
    try:
        model = tiny_model(result.model_type)
    except Exception as error:
        return "not built", explain(error)
    keywords = _GENERATE.get(result.model_type, {})
    try:
        base = generate(model, **keywords)
        expect(base.same(generate(model, **keywords)), "two runs of the base model differ")
    except Exception as error:
        return "no generate", explain(error)
    attributes, hooks = set(model.__dict__), traces(model)
    try:
        steer(model, base, result, **keywords)
        outcome = "steered", result.reason
    except Exception as error:
        reason = refusal(error)
        outcome = ("failed", explain(error)) if reason is None else ("refused", reason)
    if left := [*(set(model.__dict__) - attributes), *(hook for hook in traces(model) if hook not in hooks)]:
        return "failed", f"left behind: {left}"
    if not base.same(generate(model, **keywords)):
        return "failed", "after removal the model is not what it was"
    return outcome


def examine(model_type: str) -> Result:
    """Builds, steers and restores one type."""
    result, began = Result(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]), time.perf_counter()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # transformers' own, about half of the configs
        result.outcome, result.reason = outcome_of(result)
    result.seconds = time.perf_counter() - began
    return result


def unexpected(results: Sequence[Result]) -> list[Result]:
    """Failures, and with the pinned transformers every outcome that is not the expected one."""
    exact = f"transformers=={transformers.__version__}" in CONSTRAINTS.splitlines()
    return [
        r for r in results if r.outcome == "failed" or (exact and r.outcome != EXPECTED.get(r.model_type, "steered"))
    ]


def summary(results: Sequence[Result]) -> str:
    counts = Counter(result.outcome for result in results)
    built = len(results) - counts["not built"]
    return (
        f"transformers {transformers.__version__}: {built} of {len(results)} types built, "
        f"{counts['steered']} steered and restored bit by bit, {counts['refused']} refused with a reason, "
        f"{counts['failed']} failed, {counts['no generate']} cannot generate"
    )


def table(model_types: Iterable[str]) -> list[Result]:
    """Examines types one after the other and prints a line for each; a connection is an error."""
    results = []
    with mock.patch.object(socket.socket, "connect", side_effect=OSError("the conformance run opens no connection")):
        for model_type in model_types:
            results.append(result := examine(model_type))
            columns = result.outcome, result.model_type, result.model_class, result.path, result.output, result.reason
            print("{:<12}{:<26}{:<42}{:<36}{:<31}{}".format(*columns).rstrip(), flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="TYPE", choices=MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args(arguments)
    results = table(options.only or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    print(summary(results))
    slowest = sorted(results, key=lambda result: -result.seconds)[:5]
    total = sum(result.seconds for result in results)
    print(f"{total:.0f} s; slowest: " + ", ".join(f"{result.model_type} {result.seconds:.1f} s" for result in slowest))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1) + "\n")
    for result in unexpected(results):
        wanted = EXPECTED.get(result.model_type, "steered")
        print(f"unexpected: {result.model_type} {result.outcome}; expected {wanted}. {result.reason}", file=sys.stderr)
    return 1 if unexpected(results) else 0


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    sys.exit(main())
