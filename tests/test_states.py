from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import tiny_model
from checkout import TINY_LFM2
from models import default_dtype, fitted_adapter, greedy, prompts, random_model, traces

import asa_adapter.states
from asa_adapter import IncompatibleModelError
from asa_adapter.modeling.forward import evaluation_mode, forward_keywords
from asa_adapter.modeling.prefix_cache import SharedPrefix
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.states import HiddenStates, collect_hidden_states, last_token_states


def states_one_by_one(model: Any, tokenizer: Any, rows: list[dict[str, Any]], tools: Any) -> torch.Tensor:
    """(L, N, D) as a plain loop over rows and blocks gives them, without padding."""
    result = []
    for row in rows:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["instruction"]}],
            tools=tools,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        seen: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out[0, -1].clone()))
            for block in decoder_blocks(model)
        ]
        with torch.no_grad():
            model(ids)
        for hook in hooks:
            hook.remove()
        result.append(torch.stack(seen))
    return torch.stack(result, dim=1)


def alike(splits: Any, count: int) -> list[dict[str, Any]]:
    """Rows that offer the same tools, so that their prompts start alike; some rows of the data have their own."""
    return [row for row in splits["cal"] if row["tools"] == splits["cal"][0]["tools"]][:count]


def test_batched_states_equal_those_of_each_prompt_alone(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = tiny_lfm2
    rows = alike(splits, 11)
    found = collect_hidden_states(model, tokenizer, rows, batch_size=4, progress=False)
    expected = states_one_by_one(model, tokenizer, rows, rows[0]["tools"])
    assert found.states.dtype == torch.float32
    torch.testing.assert_close(found.states, expected, rtol=1e-4, atol=1e-4)


def test_collecting_leaves_no_trace_and_keeps_the_training_mode(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = tiny_lfm2
    model.model.layers[1].train()
    modes = [module.training for module in model.modules()]
    try:
        collect_hidden_states(model, tokenizer, alike(splits, 2), progress=False)
        assert [module.training for module in model.modules()] == modes
        assert traces(model) == []
    finally:
        model.eval()


def test_a_rows_own_tools_change_its_state(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = tiny_lfm2
    row = splits["cal"][0]
    rows = [row, {**row, "tools": row["tools"][:1]}]
    states = collect_hidden_states(model, tokenizer, rows, progress=False).states[-1]
    assert not torch.allclose(states[0], states[1], atol=1e-3)


def test_no_rows_are_refused(tiny_lfm2: Any) -> None:
    with pytest.raises(ValueError, match="there are no rows to collect hidden states from"):
        collect_hidden_states(*tiny_lfm2, [])


def test_a_tokenizer_without_a_chat_template_is_refused(tiny_lfm2: Any, splits: Any) -> None:
    class Bare:
        chat_template = None
        name_or_path = "bare"

    with pytest.raises(ValueError, match="the tokenizer 'bare' has no chat template; expected one"):
        collect_hidden_states(tiny_lfm2[0], Bare(), alike(splits, 1))


def test_a_block_with_another_axis_order_is_refused(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = tiny_lfm2
    turn = decoder_blocks(model)[-1].register_forward_hook(lambda _m, _a, out: out.transpose(0, 1))
    try:
        with pytest.raises(
            IncompatibleModelError, match=r"block 7 returned a state of shape .*; expected \(rows, tokens"
        ):
            collect_hidden_states(model, tokenizer, alike(splits, 2), progress=False)
    finally:
        turn.remove()
    assert traces(model) == []


def test_states_are_read_at_the_positions_that_generate_gives() -> None:
    model, ids = tiny_model("roberta"), prompts()
    blocks = decoder_blocks(model)
    with evaluation_mode(model):
        states = last_token_states(model, blocks, ids, torch.ones_like(ids), SharedPrefix())
    with fitted_adapter().attach(model) as steering:
        greedy(model, ids)
        record = steering._record
    assert record is not None
    assert torch.equal(record.met[0].states, states[2])


def test_blocks_that_text_does_not_run_are_named() -> None:
    model, ids = tiny_model("mllama"), prompts()
    with (
        evaluation_mode(model),
        pytest.raises(IncompatibleModelError, match=r"blocks \[3\] of MllamaForCausalLM do not run on text alone"),
    ):
        last_token_states(model, decoder_blocks(model), ids, torch.ones_like(ids), SharedPrefix())


def test_a_layer_that_puts_out_the_same_for_all_prompts_is_blind() -> None:
    generator = torch.Generator().manual_seed(0)
    seeing = torch.randn(5, 8, generator=generator)
    blind = torch.ones(5, 8) + 1e-6 * torch.randn(5, 8, generator=generator)
    assert HiddenStates(torch.stack([blind, seeing])).sees_prompt() == [False, True]


def test_only_keywords_that_the_forward_takes_are_passed() -> None:
    model = random_model("gpt2")
    assert forward_keywords(model, logits_to_keep=1, no_such_keyword=2) == {"logits_to_keep": 1}
    assert model(prompts(), **forward_keywords(model, logits_to_keep=1)).logits.shape[1] == 1


@pytest.mark.parametrize("broken", ["raises", "gives other states"])
def test_an_architecture_whose_cache_cannot_be_shared_is_run_whole(
    tiny_lfm2: Any, splits: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    model, tokenizer = tiny_lfm2
    rows = alike(splits, 5)
    spreads = []

    def spread(self: SharedPrefix, rows: int) -> Any:
        spreads.append(rows)
        if broken == "raises":
            raise AttributeError("no reorder_cache")
        return transformers.DynamicCache(config=model.config)

    monkeypatch.setattr(SharedPrefix, "spread", spread)
    found = collect_hidden_states(model, tokenizer, rows, progress=False)
    assert len(spreads) == 1
    expected = states_one_by_one(model, tokenizer, rows, rows[0]["tools"])
    torch.testing.assert_close(found.states, expected, rtol=1e-4, atol=1e-4)


def passes(model: Any, tokenizer: Any, rows: list[dict[str, Any]], batch_size: int = 4) -> list[tuple[int, int]]:
    """(rows, tokens) of each forward pass that collecting the rows' states takes."""
    seen: list[tuple[int, int]] = []
    with model.model.register_forward_pre_hook(
        lambda _m, _a, kw: seen.append(tuple(kw["input_ids"].shape)), with_kwargs=True
    ):
        collect_hidden_states(model, tokenizer, rows, batch_size=batch_size, progress=False)
    return seen


def test_a_shared_prefix_is_run_once(tiny_lfm2: Any, splits: Any) -> None:
    (_, shared), *check, batch = passes(*tiny_lfm2, alike(splits, 8))
    assert shared > 100  # for the sample and for all
    assert [rows for rows, _ in check] == [2, 1, 1]
    assert batch[0] == 8
    assert batch[1] < shared


def test_half_precision_does_not_cost_the_shared_prefix(splits: Any) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY_LFM2)
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY_LFM2, dtype=torch.float16).eval()
    assert max(length for _, length in passes(model, tokenizer, alike(splits, 8))[4:]) < 100


@pytest.fixture
def five_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asa_adapter.states, "_AT_ONCE", 5)


@pytest.mark.usefixtures("five_at_once")
@pytest.mark.parametrize("kept", ["memory", "file"])
def test_rows_are_run_in_parts_and_keep_their_order(kept: str, tiny_lfm2: Any, splits: Any, tmp_path: Path) -> None:
    rows, file = alike(splits, 12), tmp_path / "states.npy" if kept == "file" else None
    found = collect_hidden_states(*tiny_lfm2, rows, progress=False, file=file)
    assert found.states.shape == (8, 12, 160)
    expected = states_one_by_one(*tiny_lfm2, rows, rows[0]["tools"])
    torch.testing.assert_close(found.states, expected, rtol=1e-4, atol=1e-4)
    assert found.sees_prompt() == HiddenStates(expected).sees_prompt()


@pytest.mark.usefixtures("five_at_once")
def test_states_in_a_file_are_mapped_and_the_file_is_all_that_stays(
    tiny_lfm2: Any, splits: Any, tmp_path: Path
) -> None:
    file = tmp_path / "states.npy"
    file.write_text("an older one")
    found = collect_hidden_states(*tiny_lfm2, alike(splits, 7), progress=False, file=str(file))
    stored = np.load(file)
    assert [path.name for path in tmp_path.iterdir()] == ["states.npy"]
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, found.states.numpy())
    found.states.zero_()
    np.testing.assert_array_equal(np.load(file), stored)


@pytest.mark.usefixtures("five_at_once")
def test_an_error_leaves_the_older_file_and_nothing_else(tiny_lfm2: Any, splits: Any, tmp_path: Path) -> None:
    file = tmp_path / "states.npy"
    file.write_text("an older one")
    with pytest.raises(ValueError, match="has no instruction and no messages"):
        collect_hidden_states(*tiny_lfm2, [*alike(splits, 6), {"label": 1}], progress=False, file=file)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("states.npy", "an older one")]


def test_a_file_in_no_folder_is_refused(tiny_lfm2: Any, splits: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        collect_hidden_states(*tiny_lfm2, alike(splits, 2), progress=False, file=tmp_path / "nowhere" / "states.npy")


def test_states_are_float32_whatever_the_default_dtype_is(tiny_lfm2: Any, tmp_path: Path) -> None:
    """As where a user makes bfloat16 the default, to load models in it."""
    rows = [{"instruction": text} for text in ("what is 2 + 2", "hello", "translate this")]
    usual = collect_hidden_states(*tiny_lfm2, rows, progress=False).states
    with default_dtype(torch.bfloat16):
        found = collect_hidden_states(*tiny_lfm2, rows, progress=False).states
        kept = collect_hidden_states(*tiny_lfm2, rows, progress=False, file=tmp_path / "states.npy").states
    assert torch.equal(found, usual)
    assert torch.equal(kept, usual)
