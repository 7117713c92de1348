"""`GGUFModel`: a GGUF file that an unmodified llama.cpp runs, with what adapters, trainer and evaluation ask of it."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import GenerationConfig

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.engine.protocol import Answered, Answering, Facts, Pushed, Question, or_opened_for_more
from asa_adapter.errors import IncompatibleModelError, visible
from asa_adapter.files import sha256
from asa_adapter.libllama.context import Context, Run
from asa_adapter.libllama.gguf_file import (
    file_tokenizer,
    load_model,
    metadata,
    model_type,
    stored_as,
    text_ends,
    weights_digest,
)
from asa_adapter.libllama.library import open_library
from asa_adapter.llamacpp.batched_runs import BatchedAnswers, BatchedPushes, BatchedStates
from asa_adapter.llamacpp.generate_settings import GenerateSettings, generated_output
from asa_adapter.llamacpp.given_prompts import prompts_and_lasts
from asa_adapter.llamacpp.layer_check import check_layer
from asa_adapter.llamacpp.steering import (
    AttachedAdapters,
    GGUFSteering,
    SteeredGGUFRow,
    adapter_visits,
    biased_by_adapters,
)
from asa_adapter.policy.controller import Controller
from asa_adapter.steering.windows_and_records import Record

_LONGEST_NAME = 120
_PLAIN = ("F32", "F16", "BF16")
# Types of models whose GGUF files have the architecture of another one.
_ALSO = {"llama": ("mistral",)}


class GGUFModel:
    """A model file of llama.cpp, opened and checked.

    It runs on the CPU. Calls from several threads must not overlap. A prompt is read in a context whose states can be
    visited; then its memory is moved to one that cannot, where decoding costs what it always costs. So a model is held
    once, and the memory of a sequence twice.

    Args:
        path: the file.
        n_ctx: most tokens of a prompt and its answer together.
        threads: number of threads; None for one for each core, OMP_NUM_THREADS at most.
        ends: ids of tokens that end a text, beside those that the file names.
        library: a shared library of llama.cpp; None for the one that the extra `[gguf]` installs.

    Attributes:
        name_or_path: the file's name.
        generation_config: of this, `eos_token_id` is used: the tokens that end a text.
        device: where token ids are taken from.

    Raises:
        FileNotFoundError: there is no such file.
        IncompatibleModelError: llama.cpp is not installed, or another build; it cannot load the file, or the check of
            the opened model fails: its states cannot be read or steered.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        path: str | Path,
        *,
        n_ctx: int = 4096,
        threads: int | None = None,
        ends: Sequence[int] = (),
        library: str | Path | None = None,
    ) -> None:
        for name, count in (("n_ctx", n_ctx), ("threads", threads)):
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}; expected at least 1")
        self.path = Path(path)
        self._library = open_library(library)
        self._model = load_model(self._library, self.path)
        self._threads = threads or _cores_for_model()
        self._adapters = AttachedAdapters()
        self._checked: set[int] = set()
        vocabulary = self._library.model_get_vocab(self._model)
        self._size = self._library.vocab_n_tokens(vocabulary)
        self.facts = self._read_facts(n_ctx)
        found = sorted({*text_ends(self._library, vocabulary), *ends})
        self.generation_config = GenerationConfig(eos_token_id=found or None)
        self.name_or_path = self.path.name
        self.config = SimpleNamespace(
            vocab_size=self._size,
            max_position_embeddings=self.facts.length,
            model_type=self.facts.model_types[0],
            name_or_path=self.name_or_path,
        )
        self._check(self.facts.num_layers // 2)

    def _read_facts(self, n_ctx: int) -> Facts:
        library, model = self._library, self._model
        architecture = metadata(library, model, "general.architecture") or "unknown"
        refused = {
            "it has an encoder": library.model_has_encoder(model),
            "it is a diffusion model": library.model_is_diffusion(model),
        }
        if wrong := [reason for reason, holds in refused.items() if holds]:
            raise IncompatibleModelError(f"{self.path.name} ({architecture}) cannot be steered: {wrong[0]}")
        trained, kind = library.model_n_ctx_train(model), model_type(architecture)
        self._stored = stored_as(library, model)
        return Facts(
            name=visible(metadata(library, model, "general.name") or self.path.stem)[:_LONGEST_NAME],
            model_types=(kind, *_ALSO.get(kind, ())),
            hidden_size=library.model_n_embd(model),
            num_layers=library.model_n_layer(model),
            length=min(n_ctx, trained) if trained > 0 else n_ctx,
            quantised="" if self._stored in _PLAIN else self._stored,
            longest=max(trained, 0),
        )

    def __repr__(self) -> str:
        facts = self.facts
        return (
            f"GGUFModel({self.name_or_path!r}, {facts.model_types[0]}, width {facts.hidden_size}, "
            f"{facts.num_layers} blocks, {self._stored})"
        )

    @functools.cached_property
    def _digest(self) -> str:
        return weights_digest(self._library, self._model, self.path)

    def tokenizer(self) -> Any:
        """The tokenizer that the file carries, with its chat template, as transformers reads it.

        Raises:
            IncompatibleModelError: it carries none, or transformers cannot read it.
        """
        return file_tokenizer(self._library, self._model, self.path)

    def fingerprint(self) -> str:
        """How most weights are stored, and a digest of all of them: "gguf:Q4_0:0123456789abcdef"."""
        return f"gguf:{self._stored}:{self._digest}"

    def digest(self) -> str:
        """Digest of what results depend on: the weights, the library and the tokens that end a text."""
        ends = self.generation_config.eos_token_id
        return sha256(repr((self.fingerprint(), self.facts, self._library.digest, ends)).encode())

    @property
    def is_steered(self) -> bool:
        """Whether an adapter is attached."""
        return bool(self._adapters.handles)

    def attach(
        self,
        controller: Controller,
        config: ASAConfig,
        *,
        steer_without_tools: bool = False,
        every_state: bool = False,
    ) -> GGUFSteering:
        """Steers the model until the handle is removed; `ASAAdapter.attach` calls it, after its own checks.

        Raises:
            ValueError: the model already has an adapter at this layer.
            IncompatibleModelError: the states behind one of its layers cannot be read or steered.
        """
        for layer in config.hooked:
            self._check(layer)
        return GGUFSteering(self._adapters, controller, config, steer_without_tools, every_state)

    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **settings: Any
    ) -> torch.Tensor | SimpleNamespace:
        """Answers prompts one after the other, steered where adapters are attached.

        Args:
            input_ids: (B, T) token ids.
            attention_mask: (B, T), non-zero where there is a token, padding on either side; None for all.
            settings: `max_new_tokens`, `do_sample`, `temperature`, `top_k`, `top_p`, `eos_token_id`, `pad_token_id`,
                `streamer` (for a single prompt), `output_logits` and `return_dict_in_generate`, as in transformers.
                Samples are drawn by torch's own generator.

        Returns:
            (B, T + A) token ids; with `return_dict_in_generate` an object with these `sequences`, and `logits`, for
            each row the (V,) float32 logits of its first token, as a tuple of one (B, V) tensor, where asked for.

        Raises:
            ValueError: another setting, no batch of token ids, a mask of another shape, a streamer for several
                prompts, or a prompt that is too long.
        """
        how = GenerateSettings.of(settings, self.generation_config.eos_token_id)
        prompts, lasts = prompts_and_lasts(input_ids, attention_mask)
        if how.streamer is not None:
            if len(input_ids) != 1:
                raise ValueError(f"streamer was given with {len(input_ids)} prompts; expected one")
            how.streamer.put(input_ids)
        handles = self._adapters.active()
        kept: dict[int, list[Record]] = {id(handle): [] for handle in handles}
        answers, firsts = [], []
        try:
            for tokens, prompt, last in zip(input_ids[:, None], prompts, lasts, strict=True):
                rows = [handle.row(tokens, last) for handle in handles]
                first, ids = self._answer(prompt, rows, how)
                firsts.append(first)
                answers.append(ids)
                for handle, row in zip(handles, rows, strict=True):
                    kept[id(handle)].append(row.record)
                    handle.tell(tokens, last)
        finally:
            for handle in self._adapters.handles:
                handle.keep(kept.get(id(handle)))
        if how.streamer is not None:
            how.streamer.end()
        return generated_output(input_ids, answers, firsts, how)

    def _answer(
        self, prompt: list[int], rows: Sequence[SteeredGGUFRow], how: GenerateSettings
    ) -> tuple[torch.Tensor, list[int]]:
        """The logits of the first token, and the token ids of the answer to one prompt."""
        self.check_length(len(prompt) + how.max_new_tokens)
        logits = self._begun(prompt, rows)
        writer, ids = self._writer, [how.chosen(logits)]
        while len(ids) < how.max_new_tokens and ids[-1] not in how.ends:
            if len(ids) == 1:
                writer.load(self._reader.save())
            writer.read([Run(0, ids[-1:], len(prompt) + len(ids) - 1)])
            ids.append(how.chosen(writer.logits()))
        return logits, ids

    def _begun(self, prompt: list[int], rows: Sequence[SteeredGGUFRow]) -> torch.Tensor:
        """Reads a prompt, and returns the (V,) logits of the first token, steered and biased."""
        reader = self._reader
        reader.clear()
        reader.read([Run(0, prompt, 0)], adapter_visits(rows))
        return biased_by_adapters(rows, reader.logits())

    def _check(self, layer: int) -> None:
        if layer not in self._checked:
            check_layer(self._context, self.facts, layer)
            self._checked.add(layer)

    def check_length(self, tokens: int) -> None:
        """Refuses a prompt and answer that are too long.

        Raises:
            ValueError: they have more tokens than the model was opened for.
        """
        if tokens > self.facts.length:
            raise ValueError(
                f"prompt and answer may have {tokens} tokens; this model was opened for {self.facts.length}. Shorten "
                f"them{or_opened_for_more(self.facts)}"
            )

    def last_states(self, prompts: Sequence[Sequence[int]], done: Callable[[int], Any]) -> torch.Tensor:
        """(L, N, D) float32 states behind all blocks at each prompt's last token; shared beginnings are run once."""
        self.check_length(max(map(len, prompts)))
        return BatchedStates(self._context, self.facts, self._ordered).of(prompts, done)

    def pushed_logits(
        self, prompts: Sequence[Sequence[int]], pushes: Sequence[tuple[int, Pushed]], done: Callable[[int], Any]
    ) -> Iterator[tuple[list[int], int, torch.Tensor]]:
        """Logits of the first answer token without and under pushes; see `EngineModel`."""
        self.check_length(max(map(len, prompts)))
        return BatchedPushes(self._context, pushes, done).of(prompts)

    def answers(
        self, prompts: Sequence[Sequence[int]], asked: Callable[[int], Iterable[Question]], how: Answering
    ) -> Iterator[Answered]:
        """The answers to the questions that are asked about each prompt, several at a time; see `EngineModel`."""
        self.check_length(max(map(len, prompts)) + how.max_new_tokens)
        settings = GenerateSettings.answering(how, self.generation_config.eos_token_id)
        return BatchedAnswers(self._context, self._adapters, settings, how).of(prompts, asked)

    @property
    def _ordered(self) -> bool:
        """Whether several sequences of different lengths are run in the order in which they are given."""
        library, model = self._library, self._model
        return not (library.model_is_hybrid(model) or library.model_is_recurrent(model))

    def _context(self, tokens: int, sequences: int = 1, watched: bool = False) -> Context:
        return Context(
            self._library,
            self._model,
            self.facts.hidden_size,
            self._size,
            tokens=tokens,
            sequences=sequences,
            threads=self._threads,
            watched=watched,
            exact=self._stored == "F32",  # a file that nobody rounded is for exact numbers
        )

    @functools.cached_property
    def _reader(self) -> Context:
        return self._context(self.facts.length, watched=True)

    @functools.cached_property
    def _writer(self) -> Context:
        return self._context(self.facts.length)

    def close(self) -> None:
        """Frees the model's memory; it must not be used any more."""
        for name in ("_reader", "_writer"):
            if (context := self.__dict__.pop(name, None)) is not None:
                context.close()
        if self._model:
            self._library.model_free(self._model)
            self._model = 0

    def __del__(self) -> None:
        if self.__dict__.get("_model"):
            self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> "GGUFModel":
        raise TypeError("a GGUF model is not copied: open the file again")

    def __reduce__(self) -> Any:
        raise TypeError("a GGUF model cannot be pickled: open the file again")


def _cores_for_model() -> int:
    bound = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, int(bound)) if bound.isdigit() and int(bound) else cores
