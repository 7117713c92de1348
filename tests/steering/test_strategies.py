"""Decoding strategies that run transformers' loop themselves: each run is steered at the end of its own prompt."""

import copy
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models import PAD, fitted_adapter, greedy, prompts, random_model, traces

from asa_adapter import ASAAdapter
from asa_adapter.modeling.forward import CACHE, CACHE_NAMES
from asa_adapter.modeling.residual_stream import decoder_blocks

SETTINGS = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": PAD}
MORE = torch.tensor([[11, 12, 13, 14]])
Loop = Callable[..., torch.Tensor]


def with_more(ids: torch.Tensor, side: str = "behind") -> torch.Tensor:
    more = MORE.expand(len(ids), -1)
    return torch.cat([ids, more] if side == "behind" else [more, ids], dim=1)


def fresh(model: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """What a loop is given, but for the cache and what fits one length only."""
    kept = {name: value for name, value in settings.items() if name not in (*CACHE_NAMES, "position_ids")}
    return {**kept, CACHE: transformers.DynamicCache(config=model.config)}


def sampled(model: Any, ids: torch.Tensor, processors: Any, _criteria: Any, config: Any, **keywords: Any) -> Any:
    """transformers' own loop, eight tokens."""
    config = copy.deepcopy(config)
    config.max_length = ids.shape[1] + 8
    stop = transformers.StoppingCriteriaList([transformers.MaxLengthCriteria(config.max_length)])
    keywords = fresh(model, keywords) | {"logits_processor": processors, "stopping_criteria": stop}
    return type(model)._sample(model, ids, generation_config=config, **keywords)


def generated(model: Any, ids: torch.Tensor, *_: Any, **keywords: Any) -> Any:
    return model.generate(ids, **SETTINGS, attention_mask=keywords.get("attention_mask"))


def of_the_class(model: Any, ids: torch.Tensor, *_: Any, **keywords: Any) -> Any:
    return transformers.GenerationMixin.generate(model, ids, **SETTINGS, attention_mask=keywords.get("attention_mask"))


LOOPS = pytest.mark.parametrize("loop", [sampled, generated, of_the_class])


@LOOPS
def test_each_of_a_strategys_runs_is_steered(lfm2: Any, adapter: ASAAdapter, loop: Loop) -> None:
    ids, answers = prompts(), []

    def three_times(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        args = given(args, keywords)
        answers.extend(loop(model, input_ids, *args, **keywords) for _ in range(3))
        return answers[-1]

    base = greedy(lfm2, ids)
    with adapter.attach(lfm2) as steering:
        plain = greedy(lfm2, ids)
        result = greedy(lfm2, ids, custom_generate=three_times)
        assert [(d.position, d.applied) for d in steering.decisions] == [(8, True)] * 3
    assert not torch.equal(plain, base)
    assert all(torch.equal(answer, plain) for answer in [*answers, result])
    assert traces(lfm2) == []


def given(args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """A loop's processors, criteria and configuration, taken out of the keywords."""
    return args + tuple(keywords.pop(n) for n in ("logits_processor", "stopping_criteria", "generation_config"))


@LOOPS
@pytest.mark.parametrize("side", ["before", "behind"])
def test_a_longer_prompt_is_steered_at_its_own_end(lfm2: Any, adapter: ASAAdapter, loop: Loop, side: str) -> None:
    ids = prompts()

    def longer(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        return loop(model, with_more(input_ids, side), *given(args, keywords), **keywords)

    with adapter.attach(lfm2) as steering:
        expected = greedy(lfm2, with_more(ids, side))
        assert torch.equal(greedy(lfm2, ids, custom_generate=longer), expected)
        assert [(d.position, d.applied) for d in steering.decisions] == [(12, True)] * 3


MARK = (40, 41, 42)
USER, RESULT = (40, 41), (40, 42)


@LOOPS
@pytest.mark.parametrize(
    ("fitted", "begin", "end", "applied"),
    [
        ({"state_marks": {"first": (USER,), "after_result": (RESULT,)}}, USER, RESULT, False),
        ({"tools_marks": (MARK,)}, (), MARK, True),
    ],
    ids=["a result is appended", "tools are appended"],
)
def test_what_a_longer_prompt_is_is_read_from_all_of_it(
    lfm2: Any, loop: Loop, fitted: dict[str, Any], begin: tuple[int, ...], end: tuple[int, ...], applied: bool
) -> None:
    ids = prompts(2, 10)
    ids[:, 1 : 1 + len(begin)] = torch.tensor(begin, dtype=torch.int64)
    more = torch.tensor([[*end, 11, 12]]).expand(2, -1)

    def longer(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        kept = keywords | {"attention_mask": None}
        return loop(model, torch.cat([input_ids, more], dim=1), *given(args, kept), **kept)

    with fitted_adapter(alpha=40.0, tau=0.5, **fitted).attach(lfm2) as steering:
        expected = greedy(lfm2, torch.cat([ids, more], dim=1))
        whole = [(d.position, d.state, d.applied) for d in steering.decisions]
        assert [one[2] for one in whole] == [applied] * 2
        assert torch.equal(greedy(lfm2, ids, custom_generate=longer), expected)
        assert [(d.position, d.state, d.applied) for d in steering.decisions] == whole


def test_the_rows_of_beams_share_a_decision_in_a_longer_prompt_too(lfm2: Any, adapter: ASAAdapter) -> None:
    def longer(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        return sampled(model, with_more(input_ids), *given(args, keywords), **keywords)

    with adapter.attach(lfm2) as steering:
        expected = greedy(lfm2, with_more(prompts()))
        answer = greedy(lfm2, prompts(), custom_generate=longer, num_beams=2)
        assert [(d.position, d.applied) for d in steering.decisions] == [(12, True)] * 3
    assert torch.equal(answer, expected.repeat_interleave(2, dim=0))


@pytest.mark.parametrize("loop", [sampled, of_the_class])
def test_padded_rows_of_a_longer_prompt_are_steered_at_their_own_ends(
    lfm2: Any, adapter: ASAAdapter, loop: Loop
) -> None:
    """Right padding: a loop that is given a mask is followed by it, row by row."""
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = mask[2, 4:] = 0

    def longer(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        first = torch.ones(3, 4, dtype=torch.long)
        keywords["attention_mask"] = torch.cat([first, keywords["attention_mask"]], dim=1)
        return loop(model, with_more(input_ids, "before"), *given(args, keywords), **keywords)

    with adapter.attach(lfm2) as steering:
        greedy(lfm2, prompts(), attention_mask=mask, custom_generate=longer)
        assert [d.position for d in steering.decisions] == [12, 9, 7]


@pytest.mark.parametrize(
    "settings",
    [{"prompt_lookup_num_tokens": 3}, {"num_beams": 3}, {"prefill_chunk_size": 4}, {"use_cache": False}, {}],
    ids=["draft tokens", "beams", "chunks", "no cache", "greedy"],
)
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.parametrize("inner", ["generate", "the class's generate"])
def test_every_way_of_decoding_inside_a_strategy_is_steered(
    adapter: ASAAdapter, settings: dict[str, Any], side: str, inner: str
) -> None:
    model, ids = random_model("llama"), prompts(rows=1, length=12).repeat(1, 2)

    def twice(model: Any, input_ids: torch.Tensor, *_: Any, **_keywords: Any) -> torch.Tensor:
        own = model.generate if inner == "generate" else lambda *a, **k: type(model).generate(model, *a, **k)
        own(input_ids, **SETTINGS, **settings)
        return own(with_more(input_ids, side), **SETTINGS, **settings)

    with adapter.attach(model) as steering:
        expected = greedy(model, with_more(ids, side), **settings)
        answer = greedy(model, ids, custom_generate=twice)
        assert [(d.position, d.applied) for d in steering.decisions] == [(27, True)]
    assert torch.equal(answer, expected)


FOLDER = """
def generate(model, inputs=None, generation_config=None, **kwargs):
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    kwargs.pop("trust_remote_code", None)
    first = model.generate(inputs, generation_config, **kwargs)
    return model.generate(first, generation_config, **kwargs)
"""


def test_a_strategy_in_a_folder_is_steered_in_both_its_calls(lfm2: Any, adapter: ASAAdapter, tmp_path: Path) -> None:
    (tmp_path / "custom_generate").mkdir()
    (tmp_path / "custom_generate" / "generate.py").write_text(FOLDER)
    ids = prompts()
    with adapter.attach(lfm2) as steering:
        expected = greedy(lfm2, greedy(lfm2, ids))
        answer = greedy(lfm2, ids, custom_generate=str(tmp_path), trust_remote_code=True)
        assert [(d.position, d.applied) for d in steering.decisions] == [(16, True)] * 3
    assert torch.equal(answer, expected)


@pytest.mark.parametrize("inner", ["super", "self"])
def test_a_models_own_generate_that_runs_the_loop_twice_is_steered_twice(adapter: ASAAdapter, inner: str) -> None:
    ids, model = prompts(), random_model("llama")
    kind = type(model)

    class Twice(kind):  # type: ignore[misc, valid-type]
        def generate(self, ids: torch.Tensor, plain: bool = False, **keywords: Any) -> torch.Tensor:
            if plain:
                return super().generate(ids, **keywords)
            own = functools.partial(self.generate, plain=True) if inner == "self" else super().generate
            return own(own(ids, **keywords), **keywords)

    with adapter.attach(model):
        expected = greedy(model, greedy(model, ids))
    model.__class__ = Twice
    with adapter.attach(model) as steering:
        assert torch.equal(greedy(model, ids), expected)
        assert [(d.position, d.applied) for d in steering.decisions] == [(16, True)] * 3


def test_rows_that_a_strategy_runs_one_by_one_are_each_steered(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()

    def one_by_one(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        args = given(args, keywords)
        return torch.cat([sampled(model, row[None], *args, **keywords) for row in input_ids])

    with adapter.attach(lfm2) as steering:
        expected = greedy(lfm2, ids)
        assert torch.equal(greedy(lfm2, ids, custom_generate=one_by_one), expected)
        assert [(d.position, d.applied) for d in steering.decisions] == [(8, True)]  # of the latest run


def test_a_second_prompt_behind_the_answer_in_the_same_cache_is_steered(lfm2: Any, adapter: ASAAdapter) -> None:
    """As a strategy that lets the model think on: more tokens behind the answer, the cache kept."""
    ids = prompts(rows=1)
    kept: list[Any] = []

    def on(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        processors, _, config = given(args, keywords)
        keywords = fresh(model, keywords) | {"logits_processor": processors, "generation_config": config}
        for _ in range(2):
            keywords["attention_mask"] = torch.ones_like(input_ids)
            stop = transformers.StoppingCriteriaList([transformers.MaxLengthCriteria(input_ids.shape[1] + 8)])
            input_ids = type(model)._sample(model, input_ids, stopping_criteria=stop, **keywords)
            kept.append(input_ids.shape[1])
            input_ids = with_more(input_ids)
        return input_ids

    with adapter.attach(lfm2) as steering:
        greedy(lfm2, ids, custom_generate=on)
        assert [(d.position, d.applied) for d in steering.decisions] == [(kept[0] + 3, True)]


def test_a_loop_that_does_not_say_where_its_second_prompt_begins_warns(lfm2: Any, adapter: ASAAdapter) -> None:
    ids = prompts()

    def own_loop(model: Any, input_ids: torch.Tensor, **keywords: Any) -> torch.Tensor:
        for _ in range(2):
            cache, fed = transformers.DynamicCache(config=model.config), input_ids
            for _ in range(3):
                inputs = model.prepare_inputs_for_generation(fed, **{CACHE: cache}, use_cache=True)
                fed = model(**inputs).logits[:, -1:].argmax(-1)
        return input_ids

    with adapter.attach(lfm2), pytest.warns(RuntimeWarning, match=r"without being steered.*\(custom_generate\)"):
        greedy(lfm2, ids, custom_generate=own_loop)


def test_an_answer_that_a_late_generate_inside_gives_warns(lfm2: Any, adapter: ASAAdapter) -> None:
    """After its own loop a strategy's generate() cannot be told from one that a logits processor makes."""

    def refine(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        return model.generate(sampled(model, input_ids, *given(args, keywords), **keywords), **SETTINGS)

    with adapter.attach(lfm2), pytest.warns(RuntimeWarning, match=r"a generate\(\) inside this one gave the answer"):
        greedy(lfm2, prompts(), custom_generate=refine)


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_a_model_that_drafts_for_itself_is_steered_once(adapter: ASAAdapter, family: str) -> None:
    ids, model = prompts(rows=1), random_model(family)
    with adapter.attach(model) as steering:
        plain = greedy(model, ids)
        assert torch.equal(greedy(model, ids, assistant_model=model), plain)
        assert [(d.position, d.applied) for d in steering.decisions] == [(8, True)]
        assert steering._record is not None
        assert [len(part.rows) for part in steering._record.met] == [1]


@pytest.mark.parametrize("way", ["position", "early exit", "generation_config"])
def test_draft_tokens_behind_a_filled_cache_are_refused_however_they_are_asked_for(
    adapter: ASAAdapter, way: str
) -> None:
    ids, model = prompts(rows=1, length=14), random_model("llama")
    with torch.no_grad():
        cache = getattr(model(ids[:, :10], use_cache=True), CACHE)
    early = transformers.GenerationConfig(assistant_early_exit=1, max_new_tokens=4, pad_token_id=PAD)
    before = list(inspect.signature(model.generate).parameters).index("assistant_model")
    args: dict[str, tuple[Any, ...]] = {
        "position": (*[None] * (before - 1), random_model("llama", seed=1)),
        "early exit": (),
        "generation_config": (early,),
    }
    keywords = {"assistant_early_exit": 1} if way == "early exit" else {}
    with adapter.attach(model), pytest.raises(ValueError, match="a filled cache together with draft tokens"):
        model.generate(ids, *args[way], **{CACHE: cache}, **keywords)


def test_the_prompts_end_alone_is_changed_by_a_longer_prompt(lfm2: Any, adapter: ASAAdapter) -> None:
    """Every state of each pass beside the bare model's: one token of each run differs, the last of its prompt."""
    seen: list[torch.Tensor] = []

    def twice(model: Any, input_ids: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
        args = given(args, keywords)
        sampled(model, input_ids, *args, **keywords)
        return sampled(model, with_more(input_ids), *args, **keywords)

    block = decoder_blocks(lfm2)[2]
    with block.register_forward_hook(lambda _m, _a, out: seen.append(out.clone())):
        greedy(lfm2, prompts(), custom_generate=twice)
        bare = seen.copy()
        with adapter.attach(lfm2):
            seen.clear()  # attach() lets the model read two tokens
            greedy(lfm2, prompts(), custom_generate=twice)
    prefills = ([state for state in states if state.shape[1] > 1] for states in (bare, seen))
    changed = [(a != b).any(dim=2).nonzero().tolist() for a, b in zip(*prefills, strict=True)]
    assert changed == [[[row, 8] for row in range(3)], [[row, 12] for row in range(3)]]
