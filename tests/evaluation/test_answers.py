import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from models import fitted_adapter, random_model, traces

from asa_adapter import ASAAdapter, ToolCall, ToolCallParser
from asa_adapter.answering.prefill import Prefilled
from asa_adapter.answering.prompt_batches import PromptBatches
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.tool_calls.known_formats import FORMATS
from asa_adapter.tool_calls.outcomes import Answer
from asa_adapter.training.trainer import ASATrainer, ASATrainingArguments


@pytest.fixture(scope="module")
def rows(splits: Any) -> list[dict[str, Any]]:
    return list(splits["valid"])[::8]


@pytest.fixture(scope="module")
def evaluation(tiny_lfm2: Any) -> Evaluation:
    return Evaluation(
        *tiny_lfm2, ToolCallParser.from_tokenizer(tiny_lfm2[1]), max_new_tokens=24, batch_size=6, progress=False
    )


def test_batched_answers_are_those_of_each_prompt_alone(
    tiny_lfm2: Any, rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    model, tokenizer = tiny_lfm2
    alone = []
    for row in rows:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["instruction"]}],
            tools=row["tools"],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        alone.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))
    batched = [answer.replace(tokenizer.pad_token, "") for answer in evaluation.answers(rows)]
    assert batched == alone


def test_sampling_next_to_no_temperature_is_greedy_and_with_more_it_follows_torchs_generator(
    rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    greedy = evaluation.answers(rows[:3])
    assert dataclasses.replace(evaluation, temperature=1e-4).answers(rows[:3]) == greedy
    warm = dataclasses.replace(evaluation, temperature=1.5)
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        sampled = warm.answers(rows[:3])
        torch.manual_seed(3)
        assert warm.answers(rows[:3]) == sampled
    assert sampled != greedy


def test_until_a_call_begins_an_answer_ends_there_or_where_it_ended_before(
    rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    pad, start = evaluation.tokenizer.pad_token, evaluation.parser.start
    whole = [answer.replace(pad, "") for answer in evaluation.answers(rows)]
    cut = [answer.replace(pad, "") for answer in evaluation.answers(rows, until_call=True)]

    assert 0 < sum(start in answer for answer in whole) < len(rows)
    assert cut == [before + start if marker else before for before, marker, _ in (a.partition(start) for a in whole)]


def tokens_fed(model: Any, work: Any) -> tuple[int, Any]:
    """How many tokens go through a model's first pass over each prompt, and what the work gives."""
    seen: list[int] = []

    def count(_module: Any, _args: Any, keywords: dict[str, Any]) -> None:
        rows, length = keywords["input_ids"].shape
        seen.append(rows * length if length > 1 else 0)

    with model.model.register_forward_pre_hook(count, with_kwargs=True):
        found = work()
    return sum(seen), found


@pytest.mark.parametrize("steered", [False, True])
def test_answers_are_the_same_behind_a_shared_prefix_and_cost_a_fraction(
    tiny_lfm2: Any, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, steered: bool
) -> None:
    model, tokenizer = tiny_lfm2
    adapter = fitted_adapter(width=model.config.hidden_size, num_layers=len(model.model.layers), alpha=3.0)
    given = (rows, adapter) if steered else (rows,)
    evaluation = Evaluation(model, tokenizer, ToolCallParser.from_tokenizer(tokenizer), None, 12, 6, False)
    evaluation.answers(rows[:8])  # looks at samples, once
    assert evaluation._batches._sharing.holds
    tokens, answers = tokens_fed(model, lambda: evaluation.answers(*given))
    monkeypatch.setattr(PromptBatches, "_prefixes", lambda _self, prompts: [(SharedPrefix(), range(len(prompts)))])
    whole_tokens, whole = tokens_fed(model, lambda: evaluation.answers(*given))
    assert answers == whole
    assert 3 * tokens < whole_tokens


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_several_adapters_answer_from_one_prefill(
    tiny_lfm2: Any,
    rows: list[dict[str, Any]],
    evaluation: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
    shared_prefix: bool,
) -> None:
    model, _ = tiny_lfm2
    shape = {"width": model.config.hidden_size, "num_layers": len(model.model.layers)}
    variants = {"base": None, "asa": fitted_adapter(**shape, alpha=3.0), "less": fitted_adapter(**shape, alpha=1.0)}
    if not shared_prefix:
        monkeypatch.setattr(PromptBatches, "_prefixes", lambda _self, prompts: [(SharedPrefix(), range(len(prompts)))])
    expected = {name: evaluation.answers(rows, adapter) for name, adapter in variants.items()}
    one, _ = tokens_fed(model, lambda: evaluation.answers_of_each(rows, {"asa": variants["asa"]}))
    three, found = tokens_fed(model, lambda: evaluation.answers_of_each(rows, variants))
    assert found == expected
    assert expected["base"] != expected["asa"]
    assert one <= three < 1.6 * one  # beside the prompts, run once, a sample of two


def test_a_compiled_model_is_compiled_once_for_each_adapter(
    tiny_lfm2: Any, rows: list[dict[str, Any]], evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    model, tokenizer = copy.deepcopy(tiny_lfm2[0]), tiny_lfm2[1]
    adapter = fitted_adapter(width=model.config.hidden_size, num_layers=len(model.model.layers), alpha=3.0)
    model.model.layers[0].compile(backend="eager")
    compiled = dataclasses.replace(evaluation, model=model, tokenizer=tokenizer, max_new_tokens=4)
    found = compiled.answers_of_each(rows[:8], {"base": None, "asa": adapter})
    assert len(resets) == 1
    plain = dataclasses.replace(evaluation, max_new_tokens=4)
    assert found == plain.answers_of_each(rows[:8], {"base": None, "asa": adapter})


def test_where_a_cache_cannot_be_gone_on_from_each_adapter_runs_the_prompts(
    tiny_lfm2: Any, rows: list[dict[str, Any]], evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prefilled, "is_faithful", lambda _self, _model: False)
    fresh = dataclasses.replace(evaluation)
    fresh.answers(rows)  # looks at a sample, once
    tokens, expected = tokens_fed(tiny_lfm2[0], lambda: fresh.answers(rows))
    model = tiny_lfm2[0]
    adapter = fitted_adapter(width=model.config.hidden_size, num_layers=len(model.model.layers), alpha=3.0)
    steered = fresh.answers(rows, adapter)
    twice, found = tokens_fed(model, lambda: fresh.answers_of_each(rows, {"one": None, "two": adapter}))
    assert found == {"one": expected, "two": steered}
    assert twice > 1.7 * tokens


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("generation_config", "use_cache", False),
        ("config", "use_cache", False),
        ("generation_config", "cache_implementation", "static"),
        ("generation_config", "prompt_lookup_num_tokens", 3),
    ],
)
def test_a_generation_with_its_own_ways_of_caching_gets_whole_prompts(
    tiny_lfm2: Any, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch, place: str, name: str, value: Any
) -> None:
    monkeypatch.setattr(getattr(tiny_lfm2[0], place), name, value)
    prompts = [[*range(5, 40), i] for i in range(3)]
    assert [(prefix.length, list(rows)) for prefix, rows in evaluation._batches._prefixes(prompts)] == [(0, [0, 1, 2])]


def written(call: dict[str, Any]) -> str:
    inside = ", ".join(f"{name}={json.dumps(value)}" for name, value in call["arguments"].items())
    return f"<|tool_call_start|>[{call['name']}({inside})]<|tool_call_end|>"


def test_a_parser_by_name_gets_the_same_answers(
    tiny_lfm2: Any, rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    by_name = Evaluation(*tiny_lfm2, ToolCallParser("lfm2"), None, 8, 6, False)
    from_tokenizer = Evaluation(*tiny_lfm2, evaluation.parser, None, 8, 6, False)
    assert by_name.answers(rows[:6]) == from_tokenizer.answers(rows[:6])


def test_without_a_token_of_its_own_an_answer_ends_where_its_text_shows_a_call(
    tiny_lfm2: Any, rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    by_name = Evaluation(*tiny_lfm2, ToolCallParser("lfm2"), None, 24, 6, False)  # knows no tokens
    assert by_name.parser.call_token is None
    assert by_name.answers(rows, until_call=True) == evaluation.answers(rows, until_call=True)


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_that_has_begun_stays_one_whatever_follows(name: str) -> None:
    """An answer may end where a call begins only if more text cannot take the call back."""
    parser = ToolCallParser(name)
    call = ToolCall("get_weather", {"city": "Oslo", "days": 3})
    for text in (parser.write([call]), "\n" + parser.write([call, call]) + " Well, <|im_end|>", "I see. ```json\n{"):
        begun = [parser.triggered(text[:end]) for end in range(len(text) + 1)]
        assert begun == sorted(begun)


@pytest.mark.parametrize("name", FORMATS)
def test_what_follows_a_complete_call_counts(name: str) -> None:
    """Where calls are compared with gold calls and checked, an answer cannot end with its first call."""
    parser = ToolCallParser(name)
    one, other = ToolCall("get_weather", {"city": "Oslo"}), ToolCall("now", {})
    before = "" if name != "gpt_oss" else "<|start|>assistant "  # the model's next message
    marked = parser.start if name == "llama4" else ""  # a bare list is a call only where it begins the answer
    answer = parser.write([one])
    assert parser.parse(answer) == [one]
    assert parser.parse(f"{answer}{before}{marked}{parser.write([other])}") == [one, other]


def test_an_answer_does_not_depend_on_its_batch(rows: list[dict[str, Any]], evaluation: Evaluation) -> None:
    answers = evaluation.answers(rows)
    assert not any(evaluation.tokenizer.pad_token in answer for answer in answers)
    for batch_size in (1, 3, 64):
        assert dataclasses.replace(evaluation, batch_size=batch_size).answers(rows) == answers


def test_metrics_are_counted_from_the_answers(rows: list[dict[str, Any]], evaluation: Evaluation) -> None:
    broken = "<|tool_call_start|>[calculator("
    answers = [written(row["gold_calls"][0]) if row["label"] else broken for row in rows]
    metrics = evaluation.metrics(rows, answers)
    needed = sum(row["label"] for row in rows)
    assert (metrics["tp"], metrics["fp"], metrics["fn"], metrics["tn"]) == (needed, len(rows) - needed, 0, 0)
    assert metrics["validity"]["format"] == pytest.approx(needed / len(rows))
    assert metrics["validity"]["success_recall"] == 1.0
    assert metrics["validity"]["success_precision"] == pytest.approx(needed / len(rows))


def test_an_answer_is_cut_where_a_greater_length_would_have_gone_on(
    rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    whole = dataclasses.replace(evaluation, max_new_tokens=64).answers(rows)
    assert not any(answer.cut for answer in whole)
    lengths = [len(evaluation.tokenizer.encode(answer, add_special_tokens=False)) for answer in whole]
    limit = sorted(lengths)[len(rows) // 2]  # one that ends with the last token it may have is not cut
    for batch_size in (1, 6):
        short = dataclasses.replace(evaluation, max_new_tokens=limit, batch_size=batch_size).answers(rows)
        assert [answer.cut for answer in short] == [length > limit for length in lengths]
    first = dataclasses.replace(evaluation, max_new_tokens=1).answers(rows, until_call=True)
    assert {answer.cut for answer in first} == {True, False}
    assert [not answer.cut for answer in first] == [evaluation.parser.start in answer for answer in first]


def test_cut_answers_without_a_complete_call_are_counted_and_warned_of(
    rows: list[dict[str, Any]], evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty answers: one without a call and one in a call are cut; one that babbles behind its call is not."""
    call = written({"name": "calculator", "arguments": {"expression": "1 + 1"}})
    texts = [Answer("Well, let me", cut=True), Answer(call[:-25], cut=True), Answer(call + " and", cut=True)]
    texts += [Answer("No.")] * 17
    metrics = evaluation.metrics([rows[0]] * 20, texts)
    assert (metrics["cut"], metrics["cut_share"]) == (2, 0.1)
    assert "cut" not in evaluation.metrics([rows[0]] * 20, [str(text) for text in texts])
    answers = {"base": [Answer("No.")] * 20, "asa": texts}
    monkeypatch.setattr(Evaluation, "answers_of_each", lambda *_: answers)
    told = r"10 % of the answers of 'asa' on these rows ended because max_new_tokens \(24\) ran out.* such as 48"
    with pytest.warns(UserWarning, match=told):
        found = evaluation.compare([rows[0]] * 20, fitted_adapter())
    assert [found[name]["cut_share"] for name in ("base", "asa")] == [0.0, 0.1]


@pytest.mark.filterwarnings("error")
def test_up_to_five_percent_of_cut_answers_are_no_warning(
    rows: list[dict[str, Any]], evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [Answer("Well, let me", cut=True)] + [Answer("No.")] * 19
    monkeypatch.setattr(Evaluation, "answers_of_each", lambda *_: {"base": texts, "asa": texts})
    assert evaluation.compare([rows[0]] * 20, fitted_adapter())["asa"]["cut_share"] == 0.05


def test_of_prompts_that_both_call_for_it_is_counted_how_many_get_a_call_of_the_same_tool(
    rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    def call(*names: str) -> str:
        return f"<|tool_call_start|>[{', '.join(f'{name}()' for name in names)}]<|tool_call_end|>"

    pairs = [
        (call("translator"), call("translator")),
        (call("translator", "web_search"), call("web_search", "translator")),
        (call("translator"), call("translator", "translator")),
        (call("translator"), call("web_search")),
        (call("translator"), call("translator", "web_search")),
        (call("translator", "web_search"), call("web_search")),
        (call("translator"), "No."),
        ("No.", call("translator")),
        ("No.", "No."),
    ]
    base, asa = ([pair[i] for pair in pairs] for i in (0, 1))
    found = evaluation.paired_metrics([rows[0]] * len(pairs), base, asa)
    assert found["asa"]["validity"]["same_tool"] == 0.5
    assert found["base"] == evaluation.metrics([rows[0]] * len(pairs), base)
    assert found["asa"]["validity"]["one_answer"] == 0
    refused = evaluation.paired_metrics(
        [rows[0]] * 5, [call("translator")] * 5, ["No.", "No. ", "No.", "x", call("f")]
    )
    assert refused["asa"]["validity"]["one_answer"] == 0.75
    assert "same_tool" not in evaluation.paired_metrics([rows[0]] * 2, base[-2:], asa[-2:])["asa"]["validity"]


def test_gold_calls_are_counted_where_rows_have_them(rows: list[dict[str, Any]], evaluation: Evaluation) -> None:
    def call(expression: str) -> str:
        return f'<|tool_call_start|>[calculator(expression="{expression}")]<|tool_call_end|>'

    gold = [{"name": "calculator", "arguments": {"expression": "1 + 1"}}]
    both = [*gold, {"name": "calculator", "arguments": {"expression": "2"}}]
    cases = [
        (gold, call("1 + 1")),
        (gold, call("1+1")),
        (gold, "Two."),
        (both, call("2") + call("1 + 1")),
        (None, call("1 + 1")),
        ([], "Two."),
    ]
    scored = [{**row, "gold_calls": expected} for row, (expected, _) in zip(rows, cases, strict=False)]
    metrics = evaluation.metrics(scored, [text for _, text in cases])
    assert metrics["gold"] == {"n": 4, "match": 2 / 4, "in_order": 1 / 4}


def test_rows_without_gold_calls_have_no_gold_metrics(rows: list[dict[str, Any]], evaluation: Evaluation) -> None:
    assert "gold" not in evaluation.metrics([{**rows[0], "gold_calls": None}], [""])


def test_gold_calls_of_no_known_shape_are_refused_before_any_work(
    rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    row = {**rows[0], "id": "valid-9", "gold_calls": ["calculator"]}
    with pytest.raises(ValueError, match="row 'valid-9': a gold call is 'calculator'; expected a name and an object"):
        evaluation.compare([row], fitted_adapter())


def test_a_steered_model_is_refused(tiny_lfm2: Any) -> None:
    model = random_model()
    refused = pytest.raises(ValueError, match=r"has an adapter attached; remove\(\) it first")
    with fitted_adapter().attach(model), refused:
        Evaluation(model, tiny_lfm2[1], ToolCallParser("lfm2"))
    Evaluation(model, tiny_lfm2[1], ToolCallParser("lfm2"))


def test_an_abstaining_adapter_compares_equal(
    tiny_lfm2: Any, splits: Any, rows: list[dict[str, Any]], evaluation: Evaluation
) -> None:
    small = {name: list(part)[::4] for name, part in splits.items()}
    grid: dict[str, Any] = {"layers": (6,), "alphas": (1e-6,), "taus": (0.5,), "betas": (1.0,), "Cs": (0.1,)}
    arguments = ASATrainingArguments(**grid, max_new_tokens=64, progress=False, exhaustive=True)
    adapter: ASAAdapter = ASATrainer(*tiny_lfm2, small, arguments).train()
    assert adapter.config.alpha == 0
    results = dataclasses.replace(evaluation, max_new_tokens=64).compare(rows, adapter)
    assert results["asa"]["validity"].pop("same_tool") == 1.0
    assert results["base"] == results["asa"]
    assert traces(tiny_lfm2[0]) == []


def test_the_models_own_generation_settings_do_not_change_the_answers(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = tiny_lfm2
    evaluation = Evaluation(model, tokenizer, ToolCallParser.from_tokenizer(tokenizer), None, 12, 4, False)
    rows = list(splits["valid"])[:4]
    plain = evaluation.answers(rows)
    kept = copy.deepcopy(model.generation_config)
    try:
        model.generation_config.update(
            repetition_penalty=3.0, no_repeat_ngram_size=1, return_dict_in_generate=True, do_sample=True
        )
        assert evaluation.answers(rows) == plain
    finally:
        model.generation_config = kept
