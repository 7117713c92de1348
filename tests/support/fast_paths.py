"""What is run together, against each prompt alone: states, first tokens and answers to prompts of two tool lists."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from models import EOS, PAD, prompts

from asa_adapter import ASAAdapter
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.evaluation.first_tokens import Push, first_tokens
from asa_adapter.modeling.forward import evaluation_mode, forward, greedy_settings
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.modeling.recording import pushed
from asa_adapter.modeling.residual_stream import decoder_blocks, hidden_size
from asa_adapter.states import collect_hidden_states, last_token_states

# For each tool list: how many tokens its prompts begin with in common, and how long they are. A window has 8 tokens.
FAMILIES = ((18, (20, 23, 20)), (24, (31, 26, 31)))
START = 3  # the token whose probability is screened
NEW_TOKENS = 3
TOLERANCE = 1e-3


class Numbers:
    """A tokenizer that writes ids as numbers. The prompts are given as ids, so it reads nothing."""

    pad_token_id, eos_token_id = PAD, EOS

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids[: ids.index(EOS)] if EOS in ids else ids))


def two_families() -> list[list[int]]:
    """Prompts of two tool lists; the first token behind what is shared differs."""
    rows = iter(prompts(rows=8, length=31, seed=7).tolist())
    found = []
    for shared, lengths in FAMILIES:
        beginning = next(rows)[:shared]
        found += [[*beginning, 10 + i, *next(rows)[: length - shared - 1]] for i, length in enumerate(lengths)]
    return found


def differences(model: Any, adapter: ASAAdapter) -> list[str]:
    """What is not as with each prompt alone: "states", "screen", "bare answers" or "steered answers"."""
    rows = two_families()
    # Prompts are ids here: nothing has to be rendered.
    with mock.patch("asa_adapter.states.encode_rows", return_value=rows):
        together = collect_hidden_states(model, Numbers(), rows, progress=False).states  # type: ignore[arg-type]
    with evaluation_mode(model):
        wrong = [] if _near(together, _states_alone(model, rows)) else ["states"]
        pushes = _pushes(model, len(rows))
        if not _near(_screened(model, rows, pushes), _screened_alone(model, rows, pushes)):
            wrong.append("screen")
    for name, steering in (("bare", None), ("steered", adapter)):
        if _answers(model, rows, steering) != _answers_alone(model, rows, steering):
            wrong.append(f"{name} answers")
    return wrong


def _near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors are equal in their last axis, relative to its norm."""
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-6)
    return bool((error <= TOLERANCE).all())


def _states_alone(model: Any, rows: list[list[int]]) -> torch.Tensor:
    blocks, each = decoder_blocks(model), [torch.tensor([row]) for row in rows]
    states = [last_token_states(model, blocks, ids, torch.ones_like(ids), SharedPrefix()) for ids in each]
    return torch.cat(states, dim=1)


def _pushes(model: Any, rows: int) -> list[Push]:
    generator, domain = torch.Generator().manual_seed(5), torch.arange(rows) % 2
    depth = len(decoder_blocks(model))
    return [Push(depth // 2, 5 * torch.randn(2, hidden_size(model), generator=generator), domain)]


def _screened(model: Any, rows: list[list[int]], pushes: list[Push]) -> torch.Tensor:
    """(N, 1 + P) probabilities of the token `START`."""
    blocks = decoder_blocks(model)
    found = first_tokens(model, blocks, rows, pushes, [START], pad_id=PAD, batch_size=8, progress=False)
    return torch.from_numpy(found.probability).T


def _screened_alone(model: Any, rows: list[list[int]], pushes: list[Push]) -> torch.Tensor:
    def probability(row: list[int]) -> torch.Tensor:
        ids = torch.tensor([row])
        return forward(model, ids, torch.ones_like(ids), use_cache=False).logits[0, -1].float().softmax(dim=0)[START]

    found = []
    for i, row in enumerate(rows):
        found.append([probability(row)])
        for push in pushes:
            with pushed(decoder_blocks(model)[push.layer], push.steps[push.domain[i : i + 1]]):
                found[-1].append(probability(row))
    return torch.tensor(found)


def _answers(model: Any, rows: list[list[int]], adapter: ASAAdapter | None) -> list[str]:
    parser: Any = SimpleNamespace(knows_tokens=False, call_token=None)
    evaluation = Evaluation(model, Numbers(), parser, max_new_tokens=NEW_TOKENS, progress=False)
    with mock.patch("asa_adapter.evaluation.answers.encode_rows", return_value=rows):
        return evaluation.answers(rows, adapter)  # type: ignore[arg-type]


def _answers_alone(model: Any, rows: list[list[int]], adapter: ASAAdapter | None) -> list[str]:
    handle = None if adapter is None else adapter.attach(model, allow_mismatch=True)
    found = []
    for row in rows:
        output = model.generate(torch.tensor([row]), **greedy_settings(Numbers(), NEW_TOKENS))
        found += [Numbers().decode(ids) for ids in output[:, len(row) :].tolist()]
    if handle is not None:
        handle.remove()
    return found
