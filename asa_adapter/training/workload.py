"""How much a training runs on the model, from which its first stage forecasts how long all of it takes."""

from collections.abc import Mapping, Sequence

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.modeling.prefix import Prompt, families
from asa_adapter.search.racing import pushes_run


def whole_run(prompts: Mapping[str, Sequence[Prompt]], layers: int, args: ASATrainingArguments) -> float:
    """All work of a training, in rows whose states are collected.

    A row's work is the number of tokens that run through the model. A push of the screen counts as half a token, since
    it runs through the blocks behind its layer; answers count as if they were as long as they may be, and rows with
    other lists of tools as if they were fitted on, unless that is ruled out.

    Args:
        prompts: the prompts of cal, train and valid as token ids.
        layers: number of layers to try.
        args: the training arguments.
    """
    tokens = {name: _tokens_run(ids) for name, ids in prompts.items()}
    rows = {name: len(ids) for name, ids in prompts.items()}
    alphas = sum(1 for alpha in args.alphas if alpha)
    pushes = pushes_run(args, layers, rows["train"])
    pushes += (2 * args.finalists + 3 * alphas) * rows["valid"]
    screens = tokens["train"] + 2 * tokens["valid"] + pushes / 2
    answers = tokens["valid"] + (1 + args.finalists) * rows["valid"] * args.max_new_tokens
    states = sum(tokens.values())
    varied = 4 * tokens["valid"] + (0 if args.vary_tools is False else (tokens["cal"] + tokens["train"]) / 2)
    return sum(rows.values()) * (states + screens + answers + varied) / states


def _tokens_run(prompts: Sequence[Prompt]) -> int:
    """Number of tokens in prompts whose shared prefixes are run once."""
    return sum(map(len, prompts)) - sum(family.saved for family in families(prompts))
