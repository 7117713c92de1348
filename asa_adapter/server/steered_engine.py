"""`SteeredEngine`: an adapter on a model of transformers or llama.cpp, as the server's engine."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from asa_adapter.adapter import ASAAdapter
from asa_adapter.answering.decoding import text_ends
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.modeling.forward import greedy_settings
from asa_adapter.notations.tool_schemas import tool_schemas, unwrapped
from asa_adapter.policy.decision import Decision
from asa_adapter.server.engine import Answer, Asked, Told
from asa_adapter.server.writing import Stopped, Writing


class SteeredEngine:
    """A model that is steered while it is served.

    Args:
        name: what clients call it.
        model: a causal language model of transformers, or a GGUF model.
        tokenizer: its tokenizer.
        adapter: the adapter.
        allow_mismatch: as in `ASAAdapter.attach`.
        max_new_tokens: greatest length of an answer where a request names none.

    Raises:
        IncompatibleModelError: the adapter does not fit the model.
        ValueError: the format of the model's calls is not known.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        adapter: ASAAdapter,
        *,
        allow_mismatch: bool = False,
        max_new_tokens: int = 512,
    ) -> None:
        self.name = name
        self.parser = adapter.parser(tokenizer)
        kept = (self.parser.start, self.parser.end)
        self.hidden: Sequence[str] = [sign for sign in tokenizer.all_special_tokens if sign not in kept]
        self._model, self._tokenizer = model, tokenizer
        self._max_new_tokens, self._longest = max_new_tokens, _longest_text(model)
        fitted = adapter.config.tools or []
        self._bare_tools = bool(fitted) and all(unwrapped(tool) is tool for tool in fitted)
        self._handle = adapter.attach(model, tokenizer=tokenizer, allow_mismatch=allow_mismatch)

    def close(self) -> None:
        """Takes the adapter off the model."""
        self._handle.remove()

    def answer(self, asked: Asked, told: Told) -> Answer:
        """Answers one request; see `Engine`."""
        # An adapter fits one way to write tools into a prompt, that of its fit.
        tools = [dict(unwrapped(tool)) if self._bare_tools else tool for tool in tool_schemas(asked.tools)]
        prompt = encode_prompt(self._tokenizer, asked.messages, tools or None, self.parser)
        settings = self._settings(len(prompt), asked)
        if asked.seed is not None:
            torch.manual_seed(asked.seed)
        with self._steered(asked):
            writing = self._written(prompt, settings, Writing(self.parser, asked, told, self._decided(asked)))
        if not asked.must_call or self.parser.triggered(writing.text, asked.tools):
            return writing.answer(len(prompt), settings["max_new_tokens"])
        # The model would not call. The bare one goes on behind the beginning of a call: there is nothing to decide.
        opening = [self.parser.opening_id(self._tokenizer)]
        most = settings["max_new_tokens"]
        with self._handle.disabled():
            forced = Writing(self.parser, asked, told, lambda: writing.decision, opening)
            if most > 1:
                self._written([*prompt, *opening], {**settings, "max_new_tokens": most - 1}, forced)
            else:
                forced.ended(())
        return forced.answer(len(prompt), most)

    def _written(self, prompt: list[int], settings: dict[str, Any], writing: Writing) -> Writing:
        ids = torch.tensor([prompt], device=self._model.device)
        with contextlib.suppress(Stopped):
            self._model.generate(ids, attention_mask=torch.ones_like(ids), streamer=writing, **settings)
        return writing.ended(text_ends(self._model))

    def _decided(self, asked: Asked) -> Any:
        """Gives the decision on the prompt that is being answered, once its first token is there."""

        def decision() -> Decision | None:
            made = self._handle.decisions if asked.factor else []
            return made[0] if made else None

        return decision

    @contextlib.contextmanager
    def _steered(self, asked: Asked) -> Iterator[None]:
        """The adapter as a request wants it."""
        if not asked.factor:
            with self._handle.disabled():
                yield
            return
        handle = self._handle
        kept = handle.steer_without_tools, handle.every_state
        try:
            handle.steer_without_tools, handle.every_state = asked.without_tools, asked.all_states
            # An adapter's own rules, which may differ by the kind of state, hold as they are where nothing is asked.
            with handle.scaled(asked.factor) if asked.factor != 1 else contextlib.nullcontext():
                yield
        finally:
            handle.steer_without_tools, handle.every_state = kept

    def _settings(self, length: int, asked: Asked) -> dict[str, Any]:
        """The settings of generate() for a prompt of some length."""
        most = asked.max_tokens or self._max_new_tokens
        if self._longest is not None:
            if length >= self._longest:
                raise ValueError(
                    f"the chat has {length} tokens; this model reads at most {self._longest - 1} and an answer"
                )
            most = min(most, self._longest - length)
        settings = greedy_settings(self._tokenizer, most)
        if asked.temperature:
            settings |= {"do_sample": True, "temperature": asked.temperature, "top_p": asked.top_p, "top_k": 0}
        return settings


def _longest_text(model: Any) -> int | None:
    """Most tokens of a prompt and its answer; None where the model does not say."""
    if is_engine_model(model):
        return model.facts.length
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else None
