"""The first token of each answer forced, forbidden or biased to open a call; the rest is the model's own."""

from typing import Any

import numpy as np
import pytest
import torch
from architectures import tiny_model
from models import PAD, VOCABULARY

from asa_adapter import ASAAdapter, ToolCallParser
from asa_adapter.answering.decoding import Decoder
from asa_adapter.answering.forcing import Forcing
from asa_adapter.answering.prefill import Prefilled
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.modeling.forward import evaluation_mode
from asa_adapter.modeling.prefix_cache import SharedPrefix

OPENINGS = (7, 20, 33)
LONGEST = 6
INF = float("inf")


def forcing(*amounts: float) -> Forcing:
    return Forcing(OPENINGS, np.array(amounts, dtype=np.float32))


def test_infinity_leaves_the_likeliest_opening_or_none_and_zero_leaves_the_row() -> None:
    logits = torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(0))
    forced, forbidden, free, lifted = forcing(INF, -INF, 0.0, 2.5).applied(logits)

    assert forced.isfinite().nonzero()[:, 0].tolist() == [max(OPENINGS, key=lambda i: logits[0, i])]
    assert forbidden.isfinite().logical_not().nonzero()[:, 0].tolist() == list(OPENINGS)
    assert torch.equal(free, logits[2])
    torch.testing.assert_close(lifted - logits[3], torch.eye(VOCABULARY)[list(OPENINGS)].sum(0) * 2.5)


def test_it_is_told_apart_by_tokens_and_amounts_and_can_be_had_for_some_rows() -> None:
    whole = forcing(INF, -INF, 0.0)
    assert whole.of([2, 0]).amounts.tolist() == [0.0, INF]
    digests = {one.digest() for one in (whole, forcing(INF, -INF, 1.0), Forcing((7,), whole.amounts))}
    assert len(digests) == 3
    assert forcing(INF, -INF, 0.0).digest() == whole.digest()


def by_hand(model: Any, prompt: list[int], amount: float) -> list[int]:
    """The greedy answer to one prompt without a cache, the first logits changed."""
    ids = list(prompt)
    for step in range(LONGEST):
        logits = model(torch.tensor([ids])).logits[:, -1].float()
        if step == 0:
            logits = forcing(amount).applied(logits)
        ids.append(int(logits.argmax()))
        if ids[-1] == model.generation_config.eos_token_id:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("regroups", [True, False])
@pytest.mark.parametrize("family", ["lfm2", "qwen3"])
def test_only_the_first_token_is_changed_whether_or_not_rows_leave_their_batch(family: str, regroups: bool) -> None:
    model, found = tiny_model(family), dict[int, list[int]]()
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, VOCABULARY, (5 + i % 3,), generator=generator).tolist() for i in range(8)]
    amounts = [INF, -INF, 0.0, 3.0, -3.0, INF, -INF, 0.0]
    settings = {"do_sample": False, "pad_token_id": PAD, "max_new_tokens": LONGEST}
    decoder = Decoder(model, settings, 3, [], None, lambda name, ids, cut: found.update({name: ids}))
    with evaluation_mode(model):
        decoder.begin(Prefilled(model, prompts, SharedPrefix(), PAD), range(8), regroups, forcing(*amounts))
        decoder.go_on(to_the_end=True)
        expected = {i: by_hand(model, prompts[i], amounts[i]) for i in range(8)}

    assert found == expected
    assert [found[i][0] in OPENINGS for i in (0, 1, 5, 6)] == [True, False, True, False]


def test_forced_and_forbidden_rows_answer_beside_bare_and_steered_ones(
    tiny_lfm2: Any, splits: Any, tiny_adapter: ASAAdapter
) -> None:
    model, tokenizer = tiny_lfm2
    parser, rows = ToolCallParser.from_tokenizer(tokenizer), list(splits["test"])[:12]
    evaluation = Evaluation(model, tokenizer, parser, max_new_tokens=12, batch_size=4, progress=False)
    gates = np.array([(-1) ** i for i in range(12)], dtype=np.float32)
    variants = {
        "base": None,
        "asa": tiny_adapter,
        "forced": Forcing(parser.opening_ids(tokenizer), gates * np.float32(INF)),
        "free": Forcing(parser.opening_ids(tokenizer), 0 * gates),
    }
    answers = evaluation.answers_of_each(rows, variants)

    assert answers["free"] == answers["base"]
    assert answers["asa"] == evaluation.answers(rows, tiny_adapter)
    assert [text.startswith(parser.start) for text in answers["forced"]] == (gates > 0).tolist()
    already = [i for i in range(12) if gates[i] > 0 and answers["base"][i].startswith(parser.start)]
    assert already
    assert all(answers["forced"][i] == answers["base"][i] for i in already)


def test_an_answer_can_begin_with_a_given_text(tiny_lfm2: Any, splits: Any) -> None:
    model, tokenizer = tiny_lfm2
    parser, rows = ToolCallParser.from_tokenizer(tokenizer), list(splits["test"])[:3]
    evaluation = Evaluation(model, tokenizer, parser, max_new_tokens=12, progress=False)
    begun = ["", parser.start, "I can "]
    found = evaluation.answers_of_each(rows, {"base": None}, begun=begun)["base"]

    bare = evaluation.answers(rows)
    assert found[0] == bare[0]
    for text, start, prompt in zip(found[1:], begun[1:], evaluation.prompts(rows, begun)[1:], strict=True):
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
        assert text == start + tokenizer.decode(ids)
