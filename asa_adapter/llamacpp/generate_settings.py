"""The settings of `generate()` that a GGUF model knows, and the tensors that it returns."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from asa_adapter.engine.protocol import Answering

_LONGEST = 256
_KNOWN = ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "eos_token_id", "pad_token_id", "streamer")
_RETURNED = ("output_logits", "return_dict_in_generate")
# Settings of transformers that change nothing at these values.
_NEUTRAL: dict[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "use_cache": True}
_NEUTRAL |= {"num_return_sequences": 1, "guidance_scale": None}


@dataclass(frozen=True)
class GenerateSettings:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: greatest length of an answer.
        ends: ids of the tokens that end it; they belong to it.
        warpers: what is done to the logits before a token is drawn; None takes the likeliest.
        pad: id of the token behind a shorter answer.
        returned: which further results are wanted.
        streamer: is given the prompt and then each token, as in transformers.
    """

    max_new_tokens: int
    ends: frozenset[int]
    warpers: LogitsProcessorList | None = None
    pad: int = 0
    returned: Mapping[str, Any] = field(default_factory=dict)
    streamer: Any = None

    @classmethod
    def of(cls, given: Mapping[str, Any], eos: int | list[int] | None) -> "GenerateSettings":
        """Those of a call.

        Args:
            given: its keywords.
            eos: ids of the tokens that end a text, where the call names none.

        Raises:
            ValueError: a setting is not known.
        """
        unknown = [
            name
            for name, value in given.items()
            if name not in (*_KNOWN, *_RETURNED) and (name not in _NEUTRAL or value != _NEUTRAL[name])
        ]
        if unknown:
            raise ValueError(
                f"a GGUF model's generate() does not know {', '.join(sorted(unknown))}; it knows "
                f"{', '.join((*_KNOWN, *_RETURNED))}"
            )
        named = given.get("eos_token_id")
        most = given.get("max_new_tokens")
        return cls(
            _LONGEST if most is None else int(most),
            frozenset(_end_ids(eos if named is None else named)),
            _logits_warpers(given) if given.get("do_sample") else None,
            given.get("pad_token_id") or 0,
            {name: given.get(name) for name in _RETURNED},
            given.get("streamer"),
        )

    @classmethod
    def answering(cls, how: Answering, eos: int | list[int] | None) -> "GenerateSettings":
        """Those of an evaluation."""
        warpers = None if how.temperature is None else _logits_warpers({"temperature": how.temperature})
        return cls(how.max_new_tokens, frozenset(_end_ids(eos)) | how.stops, warpers)

    def chosen(self, logits: torch.Tensor) -> int:
        """The token that follows, by its (V,) logits; the streamer is told of it."""
        if self.warpers is None:
            token = logits.argmax()
        else:
            scores = self.warpers(torch.LongTensor(1, 0), logits[None])
            token = torch.multinomial(scores.softmax(dim=1), 1)[0, 0]
        if self.streamer is not None:
            self.streamer.put(token[None])
        return int(token)


def generated_output(
    input_ids: torch.Tensor, answers: Sequence[list[int]], firsts: Sequence[torch.Tensor], how: GenerateSettings
) -> torch.Tensor | SimpleNamespace:
    """What generate() returns for (B, T) prompts, their answers and the logits of the first tokens."""
    rows = [torch.tensor(answer) for answer in answers]
    behind = pad_sequence(rows, batch_first=True, padding_value=how.pad)
    sequences = torch.cat([input_ids, behind.to(input_ids.dtype)], dim=1)
    if not how.returned.get("return_dict_in_generate"):
        return sequences
    return SimpleNamespace(sequences=sequences, logits=(torch.stack(list(firsts)),))


def _logits_warpers(given: Mapping[str, Any]) -> LogitsProcessorList:
    """transformers' own, in its order; what is not given is not done."""
    found = LogitsProcessorList()
    if (temperature := given.get("temperature")) not in (None, 1.0):
        found.append(TemperatureLogitsWarper(float(temperature)))
    if top_k := given.get("top_k"):
        found.append(TopKLogitsWarper(int(top_k)))
    if (top_p := given.get("top_p")) is not None and top_p < 1:
        found.append(TopPLogitsWarper(float(top_p)))
    return found


def _end_ids(eos: int | Collection[int] | torch.Tensor | None) -> list[int]:
    if eos is None:
        return []
    if isinstance(eos, torch.Tensor):
        return [int(token) for token in eos.flatten()]
    return [int(eos)] if isinstance(eos, int) else [int(token) for token in eos]
