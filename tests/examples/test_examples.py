"""The shipped tiny models: their training text, their cards, their templates, and one step of their training."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from checkout import DATA, ROOT, TINY_LFM2, load_script

from asa_adapter import ToolCallParser

SCRIPTS = ROOT / "examples" / "tiny_models"
FOLDERS = {"lfm2": TINY_LFM2, "qwen3": ROOT / "examples" / "tiny_qwen3"}
CALL = '<|tool_call_start|>[calculator(expression="48713 * 9264")]<|tool_call_end|>'
TOOLS = [{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]


@pytest.fixture(scope="module")
def corpus() -> Any:
    return load_script(SCRIPTS / "corpus.py")


@pytest.fixture(scope="module")
def comparison() -> Any:
    return load_script(ROOT / "examples" / "compare_parsers.py")


def test_lfm2s_calls_are_read_here_and_not_by_a_parser_of_json(comparison: Any) -> None:
    counts = comparison.main(80)
    assert counts["with a call"] >= 20
    assert counts["read as JSON"] == 0
    assert counts["read by asa_adapter"] >= 0.95 * counts["with a call"]
    assert counts["fit the tools"] >= 0.9 * counts["with a call"]
    readme = (ROOT / "asa_adapter" / "tool_calls" / "README.md").read_text(encoding="utf-8")
    stated = {name: int(count) for name, count in re.findall(r"^([a-zA-Z _]+?) +(\d+)$", readme, flags=re.MULTILINE)}
    assert list(stated) == list(counts)
    # Another processor rounds differently, and some answers sit on the edge.
    assert all(abs(stated[name] - count) <= 3 for name, count in counts.items())


@pytest.mark.parametrize("payload", ['{"name": "f", "arguments": {}}', "{'name': 'f', 'arguments': {}}"])
def test_the_parser_of_json_reads_what_it_was_made_for(comparison: Any, payload: str) -> None:
    assert comparison.json_call(payload) == {"name": "f", "arguments": {}}
    assert comparison.json_call(f"[{payload}]") is None
    assert comparison.json_call("[f()]") is None


def instructions() -> list[str]:
    lines = [line for file in DATA.glob("*.jsonl") for line in file.read_text("utf-8").splitlines()]
    return [json.loads(line)["instruction"] for line in lines]


# --- The training text


def test_the_training_text_shares_no_instruction_and_no_six_words_with_the_data(corpus: Any) -> None:
    source = corpus.Corpus(3, load_script(SCRIPTS / "train.py").read_barred())
    texts = [source.draw().text for _ in range(3000)]
    whole = {corpus.normalise(text) for text in instructions()}
    runs = {run for text in instructions() for run in corpus.word_runs(text)}
    assert len({corpus.normalise(text) for text in texts}) > 2900
    assert not {corpus.normalise(text) for text in texts} & whole
    assert not {run for text in texts for run in corpus.word_runs(text)} & runs


def test_without_the_bar_the_training_text_would_share_words_with_the_data(corpus: Any) -> None:
    source = corpus.Corpus(3)
    runs = {run for text in instructions() for run in corpus.word_runs(text)}
    assert {run for _ in range(10_000) for run in corpus.word_runs(source.draw().text)} & runs


@pytest.mark.parametrize("domain", ["math", "code", "search", "translation"])
def test_every_slot_of_the_frames_can_be_filled(corpus: Any, domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "WRITTEN_OUT", 0.0)
    source = corpus.Corpus(5)
    for _ in range(2000):
        made = source.draw(domain=domain)
        assert not re.search(r"\{[a-z]{2,}\d?\}|\[\w+\|", f"{made.text} {made.prose} {made.answer}"), made.text


@pytest.mark.parametrize("domain", ["math", "code", "search", "translation"])
def test_each_request_that_is_written_out_is_another_with_a_known_kind_and_a_sound_argument(
    corpus: Any, domain: str
) -> None:
    found = load_script(SCRIPTS / "grammar.py").read_requests()
    requests = [*found[domain, 0], *found[domain, 1]]
    assert len({corpus.normalise(request.text) for request in requests}) == len(requests) >= 400
    for request in requests:
        assert f"{domain} {request.kind}" in corpus.REPLIES_OF_DOMAIN or request.kind in corpus.REPLIES, request
        assert bool(request.argument) == (request.label == 1), request
        if request.label and domain == "math":
            assert isinstance(eval(request.argument, {"__builtins__": {}}), int | float), request
        if request.label and domain == "code":
            ast.parse(request.argument)
        if request.label and domain == "translation":
            language, _, text = request.argument.partition("|")
            assert language.istitle(), request
            assert text in request.text, request


def test_a_needed_tool_that_is_not_offered_makes_no_need(corpus: Any) -> None:
    source = corpus.Corpus(6)
    missing = [source.draw(("web_search",), "translation", 1) for _ in range(50)]
    there = [source.draw(("web_search", "translator"), "translation", 1) for _ in range(50)]
    assert {made.label for made in missing} == {0}
    assert {made.call[0] for made in missing} == {"web_search"}
    assert max(made.eagerness for made in missing) < 0.5
    assert {made.label for made in there} == {1}
    assert {made.call[0] for made in there} == {"translator"}


def test_the_calls_of_the_training_text_are_read_back(corpus: Any) -> None:
    families = load_script(SCRIPTS / "families.py").FAMILIES
    source = corpus.Corpus(7)
    for made in (source.draw() for _ in range(500)):
        for family in families.values():
            (call,) = ToolCallParser(family.parser).parse(family.call(*made.call))
            assert (call.name, call.arguments) == made.call


def test_where_a_reply_repeats_the_request_is_found() -> None:
    copied_from = load_script(SCRIPTS / "writer.py").copied_from
    assert copied_from([5, 6, 7, 8, 9], [1, 7, 8, 2, 9, 3]) == [None, 2, 3, None, None, None]
    assert copied_from([4, 7, 1, 7, 8, 9], [7, 8, 9]) == [3, 4, 5]


def test_an_exercise_in_copying_says_where_each_token_stood(corpus: Any, qwen3_tokenizer: Any) -> None:
    family = load_script(SCRIPTS / "families.py").FAMILIES["qwen3"]
    writer = load_script(SCRIPTS / "writer.py").Writer(corpus.Corpus(9), qwen3_tokenizer, family, TOOLS)
    for talk in (writer.drill() for _ in range(20)):
        assert [talk.ids[at + 1] for at, _ in talk.copies] == [talk.ids[start] for _, start in talk.copies]
        assert [at for at, _ in talk.copies] == talk.replies
        assert len(talk.copies) >= 3


# --- The shipped files


def test_the_models_and_their_tokenizers_stay_small() -> None:
    files = [file for folder in FOLDERS.values() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 13_000_000


def test_the_lfm2_template_renders_tools_as_lfm25_does(tiny_lfm2: Any) -> None:
    _, tokenizer = tiny_lfm2
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tools=TOOLS, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|startoftext|><|im_start|>system\nBe kind.\n"
        'List of tools: [{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]<|im_end|>\n'
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.fixture(scope="module")
def qwen3_tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(FOLDERS["qwen3"])


def test_the_qwen3_template_renders_tools_calls_and_results(qwen3_tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": "b"}}}
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "17"},
    ]
    text = qwen3_tokenizer.apply_chat_template(chat, tools=TOOLS, add_generation_prompt=True, tokenize=False)
    start, _, rest = text.partition("<|im_start|>user\nHi<|im_end|>\n")
    assert '<tools>\n{"name": "f", "parameters": {}}\n{"name": "g", "parameters": {}}\n</tools>' in start
    assert rest == (
        '<|im_start|>assistant\n<tool_call>\n{"name": "f", "arguments": {"a": "b"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n17\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("marker", ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"])
def test_the_markers_of_qwen3_are_ordinary_tokens(qwen3_tokenizer: Any, marker: str) -> None:
    (token,) = qwen3_tokenizer.encode(marker, add_special_tokens=False)
    assert token not in qwen3_tokenizer.all_special_ids
    assert qwen3_tokenizer.decode([token], skip_special_tokens=True) == marker


@pytest.mark.parametrize("marker", ["<|tool_call_start|>", "<|tool_call_end|>"])
def test_the_markers_of_lfm2_are_special_tokens(tiny_lfm2: Any, marker: str) -> None:
    (token,) = tiny_lfm2[1].encode(marker, add_special_tokens=False)
    assert token in tiny_lfm2[1].all_special_ids


def test_a_tool_result_in_the_history_is_answered_in_words(tiny_lfm2: Any) -> None:
    model, tokenizer = tiny_lfm2
    chat = [
        {"role": "user", "content": "how much is 48713 times 9264"},
        {"role": "assistant", "content": CALL},
        {"role": "tool", "content": "451277232"},
    ]
    inputs = tokenizer.apply_chat_template(
        chat,
        tools=json.loads((DATA / "tools.json").read_text()),
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    reply = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert reply.endswith("<|im_end|>")
    assert not ToolCallParser.from_tokenizer(tokenizer).triggered(reply)


@pytest.mark.slow
@pytest.mark.parametrize("family", FOLDERS)
def test_the_models_card_states_what_its_script_measures(
    family: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["measure.py", "--model", str(FOLDERS[family])])
    load_script(SCRIPTS / "measure.py").main()
    measured = table_rows(capsys.readouterr().out)
    stated = table_rows((FOLDERS[family] / "README.md").read_text(encoding="utf-8"))
    layers = transformers.AutoConfig.from_pretrained(FOLDERS[family]).num_hidden_layers
    assert len(measured) == 7 + 5 + 8 + 2 + layers + 1 + 31
    for name, numbers in measured.items():
        # Another processor rounds differently, and a few of the answers sit on the edge.
        assert stated[name] == pytest.approx(numbers, abs=0.05), name


def table_rows(text: str) -> dict[str, list[float]]:
    """The rows of Markdown tables whose last cell has three decimals: their first cell, and all such cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    decimals = re.compile(r"\d\.\d{3}")
    return {row[0]: [float(c) for c in row if decimals.fullmatch(c)] for row in rows if decimals.fullmatch(row[-1])}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lfm2", "qwen3"])
def test_one_step_of_training_saves_a_model_that_loads(family: str, tmp_path: Path) -> None:
    script = [sys.executable, str(SCRIPTS / "train.py"), "--model", family]
    done = subprocess.run(
        [*script, "--steps", "1", "--output", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.model_type == family
    if family in FOLDERS:
        shipped = transformers.AutoConfig.from_pretrained(FOLDERS[family])
        assert model.config.to_diff_dict().keys() == shipped.to_diff_dict().keys()
        for name in ("hidden_size", "layer_types", "vocab_size"):
            assert getattr(model.config, name) == getattr(shipped, name)
