"""Train the tiny models from scratch: ``python train.py [--model lfm2|qwen3] [--steps N] [--output DIR]``.

The system turn with the tools is long, so every update runs it once and lets a whole batch of short conversations go
on from its state: each is a first request, as in use, at a fraction of the cost.
"""

import argparse
import inspect
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from corpus import SORTS, Corpus, normalise, word_runs
from families import FAMILIES, Family, make_model, make_tokenizer
from torch.nn import functional
from tqdm.auto import tqdm
from writer import SYSTEM_PROMPTS, Talk, Writer

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
SEED = 7
STEPS = {"lfm2": 6041, "qwen3": 2480}
LEARNING_RATE, WARM_UP = 2.0e-3, 60
WEIGHTS = {"reply": 1.0, "decision": 2.0, "label": 2.0, "sort": 0.5, "request": 0.3, "copy": 0.5, "previous": 0.1}
# Plain requests come first, the noise of real ones is faded in; exercises in copying are faded out.
QUIET, DRILLED, MOST_DRILLS, LEAST_DRILLS = 0.15, 0.2, 0.35, 0.06


def read_barred() -> frozenset[str]:
    """Read what the training text must not contain.

    Returns:
        The normalised instructions of all evaluation splits, and the runs of six words in them.
    """
    lines = [line for file in sorted(DATA.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    texts = [json.loads(line)["instruction"] for line in lines]
    return frozenset(map(normalise, texts)) | frozenset(run for text in texts for run in word_runs(text))


def tokenizer_texts(corpus: Corpus, family: Family, tools: list[dict[str, Any]]) -> list[str]:
    """Draw text to learn a vocabulary from.

    Args:
        corpus: source of exchanges.
        family: how calls are written.
        tools: the offered tools, as they stand in every prompt.

    Returns:
        Requests, replies and what surrounds them.
    """
    frame = family.template.replace("\\n", "\n").split('"')
    texts = [json.dumps(tools)] * 200 + frame * 40 + list(SYSTEM_PROMPTS) * 20
    texts += ["system\n", "user\n", "assistant\n", "tool\n"] * 200
    for word in (word for words in corpus.words.values() for word in words):
        texts += [f" {word}"] * 4
    for exchange in (corpus.draw() for _ in range(20_000)):
        call = family.call(*exchange.call) if exchange.call else ""
        for marker in (*family.special, *family.ordinary):
            call = call.replace(marker, "")
        texts += [exchange.text, exchange.prose, exchange.answer, call]
    return texts


def losses(
    model: Any, head: torch.nn.Linear, family: Family, system: list[int], talks: list[Talk], first_ids: list[int]
) -> dict[str, torch.Tensor]:
    """Compute the losses of a batch.

    The system turn is run once, and its state is shared by all conversations. Logits are made only where something is
    to be learned. Padding stands at the right, where no token of a conversation can see it.

    Args:
        model: the model, with attention weights as outputs.
        head: reads the label and the sort from the states of one layer.
        family: which attention layers are to learn copying.
        system: tokens of the system turn.
        talks: the conversations.
        first_ids: tokens with which a reply can start, in the order of the odds.

    Returns:
        Means over the batch: ``reply`` for the reply tokens, ``decision`` for the first-token odds, ``label`` and
        ``sort`` for the head's reading, ``request`` for the tokens of the first request, ``copy`` for the attention
        that the first two heads of the copying layers pay to where a token is copied from, ``previous`` for what two
        heads of the attention layer before those pay to the token before.
    """
    size = max(len(talk.ids) for talk in talks)
    ids = torch.tensor([talk.ids + [0] * (size - len(talk.ids)) for talk in talks])
    # transformers 5.24 calls it `cache`.
    name = "cache" if "cache" in inspect.signature(model.model.forward).parameters else "past_key_values"
    past = getattr(model.model(input_ids=torch.tensor([system]), use_cache=True), name)
    past.reorder_cache(torch.zeros(len(talks), dtype=torch.long))
    output = model.model(
        input_ids=ids, **{name: past}, use_cache=True, output_attentions=True, output_hidden_states=True
    )
    states = output.last_hidden_state.flatten(0, 1)

    decisions = [(i * size + at, *rest) for i, talk in enumerate(talks) for at, *rest in talk.decisions]
    zero = torch.zeros(())
    result = {"decision": zero, "label": zero, "sort": zero, "request": zero}
    if decisions:
        spots, odds, labels, sorts = zip(*decisions, strict=True)
        logs, wanted = model.lm_head(states[list(spots)]).log_softmax(-1), torch.tensor(odds)
        result["decision"] = -(wanted * logs[:, first_ids]).sum(-1).mean()
        middle = output.hidden_states[family.label_layer + 1].flatten(0, 1)[list(spots)]
        read = head(functional.normalize(middle, dim=-1) * middle.shape[-1] ** 0.5)
        wanted = torch.tensor(labels, dtype=torch.float32)
        result["label"] = functional.binary_cross_entropy_with_logits(read[:, 0], wanted)
        result["sort"] = functional.cross_entropy(read[:, 1:], torch.tensor(sorts))
        said = [i * size + at for i, talk in enumerate(talks) if talk.decisions for at in range(talk.decisions[0][0])]
        result["request"] = functional.cross_entropy(
            model.lm_head(states[said]), ids.flatten()[torch.tensor(said) + 1]
        )
    replies = torch.tensor([i * size + at for i, talk in enumerate(talks) for at in talk.replies], dtype=torch.long)
    result["reply"] = (
        functional.cross_entropy(model.lm_head(states[replies]), ids.flatten()[replies + 1]) if len(replies) else zero
    )
    copies = torch.tensor([(i, at, start) for i, talk in enumerate(talks) for at, start in talk.copies])
    if len(copies):
        i, at, start = copies.T
        seen = [output.attentions[layer][i, :2, at, start + len(system)] for layer in family.copy_layers]
        result["copy"] = -torch.cat(seen).clamp_min(1e-5).log().mean()
    else:
        result["copy"] = zero
    # Copying needs to know what stood one token earlier; short convolutions, gated by the token, are slow to tell it.
    before = output.attentions[family.copy_layers[0] - 1][:, :2, 1:, len(system) : -1].diagonal(dim1=-2, dim2=-1)
    result["previous"] = -before.clamp_min(1e-5).log().mean()
    return result


def train(
    model: Any,
    family: Family,
    writer: Writer,
    steps: int,
    minutes: float | None = None,
    learning_rate: float = LEARNING_RATE,
    begun: float = 0.0,
) -> None:
    """Train the model in place.

    Args:
        model: untrained model, or one to go on with.
        family: which one it is.
        writer: source of conversations.
        steps: number of updates.
        minutes: time after which to end; the schedule then follows the clock and ``steps`` only bounds it.
        learning_rate: the largest.
        begun: how far the model is already, from 0 to 1, where noise and exercises are concerned.
    """
    # Only trained to make the label readable, and thrown away.
    head = torch.nn.Linear(model.config.hidden_size, 1 + len(SORTS))
    weights = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    warm_up = min(WARM_UP, max(1, steps // 10))
    batches = writer.batches()
    model.set_attn_implementation("eager")
    model.train()
    started = time.monotonic()
    bar = tqdm(range(steps), desc="training", unit="step", mininterval=2)
    for step in bar:
        done = step / steps if minutes is None else (time.monotonic() - started) / (60 * minutes)
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = learning_rate * min((step + 1) / warm_up, _cosine(done))
        writer.corpus.noise = min(1.0, max(begun, done) / QUIET)
        writer.drills = max(LEAST_DRILLS, MOST_DRILLS * (1 - max(begun, done) / DRILLED))
        system, talks = next(batches)
        lost = losses(model, head, family, system, talks, writer.first_ids)
        optimizer.zero_grad(set_to_none=True)
        torch.stack([WEIGHTS[name] * loss for name, loss in lost.items()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            bar.set_postfix({name: f"{loss.item():.3f}" for name, loss in lost.items()})
    model.eval()


def _cosine(done: float) -> float:
    """Share of the learning rate when a share of the training is done: from 1 to 0.02."""
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Write the model as bfloat16; a reader never meets a half-written file.

    Args:
        model: trained model.
        tokenizer: its tokenizer.
        output: folder to write into.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as folder:
        model.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            file.chmod(0o644)
            file.replace(output / file.name)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=FAMILIES, default="lfm2", help="which model (default: lfm2)")
    parser.add_argument("--output", type=Path, help="folder to write into (default: examples/tiny_MODEL)")
    parser.add_argument("--steps", type=int, help=f"updates; few for a smoke test (default: {STEPS})")
    parser.add_argument("--minutes", type=float, help="end after so many minutes; other updates on another machine")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, as for the stored weights)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    random.seed(SEED)
    family = FAMILIES[options.model]
    tools = json.loads((DATA / "tools.json").read_text("utf-8"))
    barred = read_barred()
    tokenizer = make_tokenizer(family, tokenizer_texts(Corpus(SEED, barred), family, tools))
    model = make_model(family, tokenizer)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    writer = Writer(Corpus(SEED + 1, barred), tokenizer, family, tools)
    train(model, family, writer, options.steps or STEPS[options.model], options.minutes)
    save(model, tokenizer, options.output or HERE.parent / f"tiny_{options.model}")


if __name__ == "__main__":
    main()
