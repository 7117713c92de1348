"""How much a training runs on the model, and how fast that is, which tells how long all of it takes."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.engine.padded_batches import pad_batch, pad_token_id
from asa_adapter.engine.prefix_tree import Prompt, tokens_run
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.modeling.forward import evaluation_mode, input_device
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.search.racing import pushes_run
from asa_adapter.states import last_token_states

_SHORT = 0.25  # seconds of one prompt, below which a batch tells more
# Tokens of a prompt that take as long as one of an answer: 2.3 to 2.9 on the models of tests/benchmarks/README.md.
_DECODED = 2.5


class Workload(NamedTuple):
    """All that a training runs on the model.

    Attributes:
        tokens: number of tokens that run through it.
        in_rows: the same in rows whose states are collected.
    """

    tokens: float
    in_rows: float


def workload(prompts: Mapping[str, Sequence[Prompt]], layers: int, args: ASATrainingArguments) -> Workload:
    """How much a training runs.

    A row's work is the number of tokens that run through the model. A push of the screen counts as half a token, since
    it runs through the blocks behind its layer, and a token of an answer as several; answers count as if they were as
    long as they may be, and rows with other lists of tools as if they were fitted on, unless that is ruled out.

    Args:
        prompts: the prompts of cal, train and valid as token ids.
        layers: number of layers to try.
        args: the training arguments.
    """
    tokens = {name: tokens_run(ids) for name, ids in prompts.items()}
    rows = {name: len(ids) for name, ids in prompts.items()}
    alphas = sum(1 for alpha in args.alphas if alpha)
    pushes = pushes_run(args, layers, rows["train"])
    pushes += (2 * args.finalists + 3 * alphas) * rows["valid"]
    screens = tokens["train"] + 2 * tokens["valid"] + pushes / 2
    answers = tokens["valid"] + _DECODED * (1 + args.finalists) * rows["valid"] * args.max_new_tokens
    varied = 4 * tokens["valid"] + (0 if args.vary_tools is False else (tokens["cal"] + tokens["train"]) / 2)
    states = sum(tokens.values())
    whole = states + screens + answers + varied
    return Workload(whole, sum(rows.values()) * whole / states)


def likely_seconds(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], work: Workload, args: ASATrainingArguments
) -> float:
    """A rough estimate of how long a training takes in one process, by how fast a few of its prompts run."""
    pad_id = pad_token_id(tokenizer)
    return work.tokens * seconds_of_a_token(model, prompts, pad_id, args.batch_size, args.layer_path)


def seconds_of_a_token(
    model: Any, prompts: Sequence[Prompt], pad_id: int, batch_size: int, layer_path: str | None
) -> float:
    """How long a token of a prompt takes: of one prompt run alone, or of a batch where that is fast."""
    blocks = None if is_engine_model(model) else decoder_blocks(model, layer_path)

    def measured(some: Sequence[Prompt]) -> float:
        began = time.perf_counter()
        if blocks is None:
            model.last_states(some, lambda _: None)
            return time.perf_counter() - began
        last_token_states(model, blocks, *pad_batch(some, pad_id, "right", input_device(model)), SharedPrefix())
        return time.perf_counter() - began

    some = list(prompts[:1])
    with evaluation_mode(model):
        measured(some)  # the first run has more to do
        if (taken := measured(some)) < _SHORT:
            some = list(prompts[:batch_size])
            taken = measured(some)
    return taken / sum(map(len, some))
