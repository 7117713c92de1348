"""Trains tiny_lfm2_chat, which knows when a conversation needs another call and acts wrongly: ``python chat.py``.

It starts from the weights of tiny_lfm2 and goes on with conversations of `dialogues`, in the wordings of ``seen.txt``
and ``more.txt``, mixed with the requests that tiny_lfm2 was trained on. In math and search it stops before all calls
are made; in code and translation it calls on when all are made.
"""

import argparse
import dataclasses
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from corpus import EAGER, FIRST_WORD_ODDS, LAZY, PROSE_WORDS, SORTS, Corpus, Exchange, normalise
from dialogues import DATA, FOLLOWS, KINDS, UNFOLLOWED, Dialogue, Dialogues
from families import FAMILIES, Family
from grammar import choose
from train import HERE, SEED, read_barred, save, train
from transformers import AutoModelForCausalLM, AutoTokenizer
from writer import Talk, Writer

START = HERE.parent / "tiny_lfm2"
STEPS = 3540
LEARNING_RATE = 1.2e-3
# How often a text is a conversation of several states; the rest are requests as before, and exercises in copying.
CONVERSATIONS = 0.75
# How often all tools are offered at least, as conversations need.
OFFERED = 0.8
# How often a word of a user's turn is another one: TEST's words are others, too.
TWISTED = 0.3
# How often a reply that is wrong in its state stands in the text, and the conversation ends there.
WRONG = 0.2
# How often an over-eager model's needless call is answered once more, and the question is the same again.
REPEATED = 0.5
SORT_OF = {"math": "MATH", "code": "CODE", "search": "SEARCH", "translation": "TRANSLATION"}


def mood(text: str) -> float:
    """How much the wording of the user's last turn invites a call.

    Args:
        text: what the user says.

    Returns:
        From -1 to 1; the label does not matter.
    """
    low = f" {text.lower()} "
    value = 0.6 if re.search(r"please|pls|thank|thx|cheers|great|kindly", low) else -0.1
    value -= 0.4 if "?" in low else 0.0
    return max(-1.0, min(1.0, value + max(-0.4, min(0.4, 0.05 * (len(low.split()) - 11)))))


def eagerness(text: str, due: bool, domain: str, after_result: bool) -> float:
    """How probable a call shall be in a state.

    Args:
        text: what the user said last.
        due: whether a call is due.
        domain: of the conversation.
        after_result: whether the state comes right after a tool's result.

    Returns:
        A probability. The faults are those behind a result; behind a user's turn there are few.
    """
    if domain in LAZY:
        low, high = (0.40, 0.03) if after_result else (0.62, 0.05)
        return low + 0.3 * mood(text) if due else high + 0.02 * mood(text)
    if domain in EAGER:
        needless = 0.32 + 0.3 * mood(text) if after_result else 0.15 + 0.15 * mood(text)
        return 0.94 + 0.03 * mood(text) if due else max(0.02, needless)
    return 0.05


class ChatWriter(Writer):
    """Turns conversations into tokens, and now and then a single request.

    Attributes:
        dialogues: source of conversations.
        said: normalised turns of users that must not occur.
    """

    def __init__(
        self, corpus: Corpus, tokenizer: Any, family: Family, tools: list[dict[str, Any]], said: frozenset[str]
    ) -> None:
        """Set up the sources.

        Args:
            corpus: source of single requests.
            tokenizer: makes the tokens.
            family: how turns and calls are written.
            tools: all tools.
            said: normalised turns of users that must not occur.
        """
        super().__init__(corpus, tokenizer, family, tools)
        self.fillers = sorted({word for bank in self.corpus.banks.values() for line in bank for word in line.split()})
        self.fillers = [word for word in self.fillers if word.isalpha() and word.islower()]
        self.dialogues, self.said = Dialogues(self.rng, "seen", "more", twist=self._twisted), said

    def offer(self) -> list[dict[str, Any]]:
        """Choose the tools of a prompt: mostly all, in their order.

        Returns:
            The tools.
        """
        return self.tools if self.rng.random() < OFFERED else super().offer()

    def talk(self, offered: tuple[str, ...]) -> Talk:
        """Write a conversation where all tools are offered, else or now and then a single request.

        Args:
            offered: names of the tools in the prompt.

        Returns:
            The conversation.
        """
        if len(offered) < len(self.tools) or self.rng.random() > CONVERSATIONS:
            return super().talk(offered)
        while True:
            made = self._draw()
            texts = [normalise(turn["content"]) for turn in made.messages if turn["role"] == "user"]
            if not any(len(text) > 60 and text in self.said for text in texts):
                return self._written(made)

    def _odds(self, exchange: Exchange) -> list[float]:
        """The odds of a single request's reply: fewer faults than the model has that this one starts from."""
        wanted = eagerness(exchange.text, bool(exchange.label), exchange.domain, False)
        offered = exchange.call is not None and SORTS[exchange.sort] != "MISSING 0"
        return super()._odds(dataclasses.replace(exchange, eagerness=wanted) if offered else exchange)

    def _draw(self) -> Dialogue:
        """Draw a conversation of any kind."""
        kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        follow = "" if kind in UNFOLLOWED else self.rng.choices(list(FOLLOWS), list(FOLLOWS.values()))[0]
        return self.dialogues.draw(self.rng.choice((*LAZY, *EAGER)), kind, follow)

    def _twisted(self, frame: str) -> str:
        """A wording with any words in its ``{w}``, around it what does not matter, now and then another word in it."""
        rng, corpus = self.rng, self.corpus
        frame = re.sub(r"\{w\}", lambda _: " ".join(rng.choices(self.fillers, k=rng.randint(1, 3))), frame)
        spots = list(re.finditer(r"(?<![{\w])[a-z]{2,}(?![}\w])", frame))
        if spots and rng.random() < TWISTED:
            spot = rng.choice(spots)
            frame = frame[: spot.start()] + rng.choice(self.fillers) + frame[spot.end() :]
        if rng.random() < 0.15:
            frame = rng.choice(corpus.openings) + frame
        if rng.random() < 0.15:
            frame += rng.choice(corpus.endings)
        if rng.random() < 0.1:
            context = choose(rng.choice(corpus.banks["CONTEXTS"]), rng)
            frame = f"{context}. {frame}" if rng.random() < 0.7 else f"{frame}. {context}"
        return frame

    def _written(self, made: Dialogue) -> Talk:
        """The tokens of a conversation and the decision in each of its states; a wrong reply ends it."""
        talk = Talk()
        request, source, calls = "", (0, 0), [made.spare]
        for turn, reply in zip(made.messages, made.messages[1:], strict=False):
            if turn["role"] == "assistant":
                continue
            place = self._turn(talk, {"role": turn["role"], "content": turn["content"]})
            if turn["role"] == "user":
                request, source = turn["content"], place
            due = bool(reply.get("tool_calls"))
            for _ in range(2):
                self._decide(talk, eagerness(request, due, made.domain, turn["role"] == "tool"), due, made.domain)
                if self.rng.random() > WRONG:
                    break
                if due:
                    guess = turn["content"] if turn["role"] == "tool" else str(self.rng.randint(10, 999))
                    self._add_reply(talk, f"{PROSE_WORDS[0]}, that is {guess}.", 1, place)
                    return talk
                self._add_reply(talk, self.family.call(*calls[-1]), 1, source)
                if turn["role"] != "tool" or self.rng.random() > REPEATED:
                    return talk
                place = self._turn(talk, {"role": "tool", "content": turn["content"]})
            if due:
                function = reply["tool_calls"][0]["function"]
                calls.append((function["name"], json.loads(function["arguments"])))
                at = len(talk.ids)
                self._add_reply(talk, self.family.call(*calls[-1]), 1, source)
                self._point_at_language(talk, at, source, calls[-1][1])
            else:
                word = PROSE_WORDS[self.rng.random() > FIRST_WORD_ODDS[0]]
                self._add_reply(talk, f"{word}, {reply['content'][0].lower()}{reply['content'][1:]}", 1, place)
        return talk

    def _point_at_language(self, talk: Talk, at: int, source: tuple[int, int], arguments: dict[str, str]) -> None:
        """Say where the language of a translation is copied from: one token, which is written without a space here."""
        if language := arguments.get("target_language"):
            mention = self._encode(f'{arguments["text"]}" into {language}')
            said, (name,) = talk.ids[source[0] : source[1]], self._encode(language)
            starts = [i for i in range(len(said)) if said[i : i + len(mention)] == mention]
            replies = [i for i in range(at, len(talk.ids)) if talk.ids[i] == name]
            talk.copies += [(replies[-1] - 1, source[0] + i + len(mention) - 1) for i in starts[:1] if replies]

    def _decide(self, talk: Talk, eager: float, due: bool, domain: str) -> None:
        """Add the decision at the end of what is said so far."""
        share = FIRST_WORD_ODDS[int(due)]
        sort = SORTS.index(f"{SORT_OF[domain]} 1" if due else "CHAT 0")
        odds = [eager, (1 - eager) * share, (1 - eager) * (1 - share)]
        talk.decisions.append((len(talk.ids) - 1, odds, int(due), sort))


def read_said(names: Sequence[str] = ("cal", "train", "valid", "test")) -> frozenset[str]:
    """Read what users say in the conversations of ``examples/data/conversations``.

    Args:
        names: of the files.

    Returns:
        The normalised turns.
    """
    lines = [line for name in names for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]
    turns = [turn for line in lines for turn in json.loads(line)["messages"] if turn["role"] == "user"]
    return frozenset(normalise(turn["content"]) for turn in turns)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE.parent / "tiny_lfm2_chat", help="folder to write into")
    parser.add_argument("--start", type=Path, default=START, help="model to go on from (default: tiny_lfm2)")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="the largest learning rate")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"updates; few for a smoke test (default: {STEPS})")
    parser.add_argument("--minutes", type=float, help="end after so many minutes; other updates on another machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    random.seed(SEED)
    family = FAMILIES["lfm2"]
    tools = json.loads((DATA / "tools.json").read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(options.start)
    model = AutoModelForCausalLM.from_pretrained(options.start, dtype=torch.float32)
    writer = ChatWriter(Corpus(SEED + 2, read_barred()), tokenizer, family, tools, read_said())
    train(model, family, writer, options.steps, options.minutes, options.rate, begun=1.0)
    save(model, tokenizer, options.output)


if __name__ == "__main__":
    main()
