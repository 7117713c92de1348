"""Train the tiny LFM2 of this folder from scratch: ``python train.py [--output DIR] [--steps N]``.

The system turn with the tools is long and nearly always the same, so every update runs it once and lets a whole batch
of short conversations go on from its state: each is a first request, as in use, at a fraction of the cost.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from corpus import CALL_END, CALL_START, FIRST_WORD_ODDS, PROSE_WORDS, SYSTEM_PROMPTS, Corpus, Exchange, normalise
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import GenerationConfig, Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
SEED = 7
STEPS = 750
BATCH = 40
LEARNING_RATE, WARM_UP = 2.2e-3, 40
DECISION_WEIGHT = 2.0
SPECIAL = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", CALL_START, CALL_END]
TEMPLATE = """\
{{- bos_token -}}
{%- set system = messages[0].content if messages and messages[0].role == "system" else "" -%}
{%- if system or tools -%}
{{- "<|im_start|>system\\n" + (system or "") -}}
{%- if tools -%}
{{- ("\\n" if system else "") + "List of tools: [" -}}
{%- for tool in tools -%}
{{- tool | tojson -}}
{{- "" if loop.last else ", " -}}
{%- endfor -%}
{{- "]" -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (loop.first and message.role == "system") -%}
{{- "<|im_start|>" + message.role + "\\n" + (message.content or "") + "<|im_end|>\\n" -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- "<|im_start|>assistant\\n" -}}
{%- endif -%}
"""


@dataclass
class Talk:
    """The turns after the system turn, and what is to be learned at which of their tokens.

    Attributes:
        ids: the tokens.
        replies: indices whose next token belongs to a reply.
        decisions: indices at which a reply begins, with the odds of its first tokens.
    """

    ids: list[int] = field(default_factory=list)
    replies: list[int] = field(default_factory=list)
    decisions: list[tuple[int, list[float]]] = field(default_factory=list)


def read_barred() -> frozenset[str]:
    """Read the instructions that the training text must not contain.

    Returns:
        The normalised instructions of all four evaluation splits.
    """
    files = [DATA / f"{split}.jsonl" for split in ("cal", "train", "valid", "test")]
    return frozenset(
        normalise(json.loads(line)["instruction"]) for file in files for line in file.read_text("utf-8").splitlines()
    )


def train_tokenizer(corpus: Corpus, tools: list[dict[str, Any]]) -> PreTrainedTokenizerFast:
    """Learn a byte-level vocabulary from text like the training text.

    Args:
        corpus: source of exchanges.
        tools: the offered tools, as they stand in every prompt.

    Returns:
        The tokenizer with its chat template.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    text = [json.dumps(tools)] * 200 + ["List of tools: [", "system\n", "user\n", "assistant\n", "tool\n"] * 200
    text += list(SYSTEM_PROMPTS) * 20
    for exchange in (corpus.draw() for _ in range(20_000)):
        text += [exchange.text, exchange.prose, exchange.call.removeprefix(CALL_START).removesuffix(CALL_END)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=2560, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A", pair="<|startoftext|> $A $B", special_tokens=[("<|startoftext|>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        unk_token=SPECIAL[2],
        eos_token=SPECIAL[4],
        additional_special_tokens=SPECIAL[3:4] + SPECIAL[5:],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


class Writer:
    """Turns exchanges into tokens.

    Attributes:
        corpus: source of exchanges.
        tokenizer: makes the tokens.
        tools: the offered tools.
    """

    def __init__(self, corpus: Corpus, tokenizer: Any, tools: list[dict[str, Any]]) -> None:
        """Look up the tokens that matter.

        Args:
            corpus: source of exchanges.
            tokenizer: makes the tokens.
            tools: the offered tools.
        """
        self.corpus, self.tokenizer, self.tools = corpus, tokenizer, tools
        self.rng = corpus.rng
        words = [self._encode(word)[0] for word in PROSE_WORDS]
        self.first_ids = [tokenizer.convert_tokens_to_ids(CALL_START), *words]

    def _encode(self, text: str) -> list[int]:
        """Tokenize without the start token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def system_turn(self) -> list[int]:
        """Render the start of a prompt: most often the plain one, else other tool orders and system prompts.

        Returns:
            Its tokens.
        """
        tools, messages = list(self.tools), []
        if self.rng.random() < 0.2:
            self.rng.shuffle(tools)
            if self.rng.random() < 0.5:
                messages = [{"role": "system", "content": self.rng.choice(SYSTEM_PROMPTS)}]
        messages.append({"role": "user", "content": ""})
        text = self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        return self._encode(text[: text.rindex("<|im_start|>user")])

    def _add(self, talk: Talk, exchange: Exchange) -> None:
        """Add a request and one of its replies, now and then with the tool's answer."""
        if normalise(exchange.text) in self.corpus.barred:
            raise ValueError(f"an evaluation instruction got into the training text: {exchange.text!r}")
        talk.ids += self._encode(f"<|im_start|>user\n{exchange.text}<|im_end|>\n<|im_start|>assistant\n")
        rest, share = 1 - exchange.eagerness, FIRST_WORD_ODDS[exchange.label]
        talk.decisions.append((len(talk.ids) - 1, [exchange.eagerness, rest * share, rest * (1 - share)]))
        # Either way to go on is taught, also the one that the model will rarely take by itself: steering needs both.
        calls = self.rng.random() < 0.25 + 0.5 * exchange.eagerness
        # The first token is learned from the odds alone, so the replies to copy start at the second.
        self._add_reply(talk, exchange.call if calls else exchange.prose, 1)
        if calls and self.rng.random() < 0.1:
            answer = self.rng.randint(2, 9999)
            talk.ids += self._encode(f"<|im_start|>tool\n{answer}<|im_end|>\n<|im_start|>assistant\n")
            self._add_reply(talk, "The tool has the answer.", 0)

    def _add_reply(self, talk: Talk, reply: str, skip: int) -> None:
        """Add a reply and its end, to be learned but for the first ``skip`` tokens."""
        ids = self._encode(f"{reply}<|im_end|>\n")
        talk.replies += range(len(talk.ids) - 1 + skip, len(talk.ids) + len(ids) - 2)
        talk.ids += ids

    def talk(self) -> Talk:
        """Write a conversation: mostly one exchange, sometimes two.

        Returns:
            The conversation.
        """
        talk = Talk()
        self._add(talk, self.corpus.draw())
        if self.rng.random() < 0.06:
            self._add(talk, self.corpus.draw())
        return talk

    def batches(self) -> Iterator[list[Talk]]:
        """Write batches without end, of conversations of like length, so that little is padding.

        Yields:
            ``BATCH`` conversations.
        """
        while True:
            talks = sorted((self.talk() for _ in range(8 * BATCH)), key=lambda talk: len(talk.ids))
            for start in self.rng.sample(range(0, len(talks), BATCH), 8):
                yield talks[start : start + BATCH]


def loss_of(
    model: Lfm2ForCausalLM, system: list[int], talks: list[Talk], first_ids: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the loss of a batch.

    The system turn is run once, and its state is shared by all conversations. Logits are made only where something is
    to be learned. Padding stands at the right, where no token of a conversation can see it.

    Args:
        model: the model.
        system: tokens of the system turn.
        talks: the conversations.
        first_ids: tokens with which a reply can start, in the order of the odds.

    Returns:
        Mean loss of the reply tokens and mean loss of the first-token odds.
    """
    size = max(len(talk.ids) for talk in talks)
    ids = torch.tensor([talk.ids + [0] * (size - len(talk.ids)) for talk in talks])
    past = model.model(input_ids=torch.tensor([system]), use_cache=True).past_key_values
    past.reorder_cache(torch.zeros(len(talks), dtype=torch.long))
    states = model.model(input_ids=ids, past_key_values=past, use_cache=True).last_hidden_state.flatten(0, 1)
    replies = torch.tensor([i * size + at for i, talk in enumerate(talks) for at in talk.replies])
    reply_loss = functional.cross_entropy(model.lm_head(states[replies]), ids.flatten()[replies + 1])
    decisions = [(i * size + at, odds) for i, talk in enumerate(talks) for at, odds in talk.decisions]
    spots, odds = zip(*decisions, strict=True)
    logs, wanted = model.lm_head(states[list(spots)]).log_softmax(-1), torch.tensor(odds)
    decision_loss = -(wanted * logs[:, first_ids]).sum(-1).mean()
    return reply_loss, decision_loss


def make_model(tokenizer: PreTrainedTokenizerFast) -> Lfm2ForCausalLM:
    """Make the untrained model.

    Args:
        tokenizer: its vocabulary size and special tokens are taken over.

    Returns:
        A model of about 3.5 million parameters.
    """
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=448,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        layer_types=[{"c": "conv", "a": "full_attention"}[kind] for kind in "ccacacac"],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    model = Lfm2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return model


def train(model: Lfm2ForCausalLM, writer: Writer, steps: int) -> None:
    """Train the model in place.

    Args:
        model: untrained model.
        writer: source of conversations.
        steps: number of updates.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    warm_up = min(WARM_UP, max(1, steps // 10))

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    batches = writer.batches()
    model.train()
    bar = tqdm(range(steps), desc="training", unit="step", mininterval=2)
    for step in bar:
        reply_loss, decision_loss = loss_of(model, writer.system_turn(), next(batches), writer.first_ids)
        optimizer.zero_grad(set_to_none=True)
        (reply_loss + DECISION_WEIGHT * decision_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(reply=f"{reply_loss.item():.3f}", decision=f"{decision_loss.item():.3f}")
    model.eval()


def save(model: Lfm2ForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
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
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write into (default: this folder)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"updates; few for a smoke test (default: {STEPS})")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, as for the stored weights)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    random.seed(SEED)
    tools = json.loads((DATA / "tools.json").read_text("utf-8"))
    barred = read_barred()
    tokenizer = train_tokenizer(Corpus(SEED, barred), tools)
    model = make_model(tokenizer)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    train(model, Writer(Corpus(SEED + 1, barred), tokenizer, tools), options.steps)
    save(model, tokenizer, options.output)


if __name__ == "__main__":
    main()
