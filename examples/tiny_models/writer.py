"""From exchanges to tokens: conversations, what is learned at which of their tokens, and batches of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from corpus import FIRST_WORD_ODDS, PROSE_WORDS, Corpus, Exchange, normalise
from families import Family

TOKENS = 1600
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Use a tool when it is needed.",
    "Be brief.",
    "Answer in one short sentence.",
    "You may call the tools below.",
)


@dataclass
class Talk:
    """The turns after the system turn, and what is to be learned at which of their tokens.

    Attributes:
        ids: the tokens.
        replies: indices whose next token belongs to a reply.
        copies: pairs of an index whose next token is copied, and the index that it is copied from.
        decisions: indices at which a reply begins, with the odds of its first tokens, the label and the sort.
    """

    ids: list[int] = field(default_factory=list)
    replies: list[int] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    decisions: list[tuple[int, list[float], int, int]] = field(default_factory=list)


def copied_from(source: list[int], reply: list[int]) -> list[int | None]:
    """Find where the tokens of a reply stand in the request.

    Args:
        source: tokens of the request.
        reply: tokens of the reply.

    Returns:
        For each token of the reply the index in the request at which the longest common run through it stands; None
        where no run has two tokens.
    """
    run = [[0] * (len(source) + 1) for _ in range(len(reply) + 1)]
    for i, token in enumerate(reply):
        for j, other in enumerate(source):
            run[i + 1][j + 1] = run[i][j] + 1 if token == other else 0
    found: list[int | None] = [None] * len(reply)
    length = [1] * len(reply)
    for i in range(len(reply), 0, -1):
        for j in range(len(source), 0, -1):
            for back in range(run[i][j]):
                if run[i][j] > length[i - 1 - back]:
                    found[i - 1 - back], length[i - 1 - back] = j - 1 - back, run[i][j]
    return found


class Writer:
    """Turns exchanges into tokens.

    Attributes:
        corpus: source of exchanges.
        tokenizer: makes the tokens.
        family: how turns and calls are written.
        tools: all tools.
        drills: share of the conversations that only exercise copying.
    """

    def __init__(self, corpus: Corpus, tokenizer: Any, family: Family, tools: list[dict[str, Any]]) -> None:
        """Look up the tokens that matter.

        Args:
            corpus: source of exchanges.
            tokenizer: makes the tokens.
            family: how turns and calls are written.
            tools: all tools.
        """
        self.corpus, self.tokenizer, self.family, self.tools = corpus, tokenizer, family, tools
        self.rng = corpus.rng
        self.drills = 0.0
        words = [self._encode(word)[0] for word in PROSE_WORDS]
        self.first_ids = [tokenizer.convert_tokens_to_ids(family.call_start), *words]

    def _encode(self, text: str) -> list[int]:
        """Tokenize without the start token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def system_turn(self, offered: list[dict[str, Any]]) -> list[int]:
        """Render the start of a prompt, now and then with a system prompt.

        Args:
            offered: the tools.

        Returns:
            Its tokens.
        """
        said = self.rng.random() < 0.15
        messages = [{"role": "system", "content": self.rng.choice(SYSTEM_PROMPTS)}] if said else []
        messages.append({"role": "user", "content": ""})
        text = self.tokenizer.apply_chat_template(messages, tools=offered, tokenize=False)
        return self._encode(text[: text.rindex("<|im_start|>user")])

    def _add(self, talk: Talk, exchange: Exchange, go_on: bool) -> None:
        """Add a request and one of its replies, after which the tool's answer may come."""
        if normalise(exchange.text) in self.corpus.barred:
            raise ValueError(f"an evaluation instruction got into the training text: {exchange.text!r}")
        source = self._turn(talk, {"role": "user", "content": exchange.text})
        talk.decisions.append((len(talk.ids) - 1, self._odds(exchange), exchange.label, exchange.sort))
        if not go_on:
            return
        # Either way to go on is taught, also the one that the model will rarely take by itself: steering needs both.
        calls = exchange.call is not None and self.rng.random() < 0.25 + 0.5 * exchange.eagerness
        reply = self.family.call(*exchange.call) if calls and exchange.call else exchange.prose
        # The first token is learned from the odds alone, so the replies to copy start at the second.
        self._add_reply(talk, reply, 1, source)
        if calls and self.rng.random() < 0.25:
            source = self._turn(talk, {"role": "tool", "content": exchange.result})
            self._add_reply(talk, exchange.answer, 0, source)

    def _odds(self, exchange: Exchange) -> list[float]:
        """The odds of a reply's first tokens: the call marker and the words of `PROSE_WORDS`."""
        rest, share = 1 - exchange.eagerness, FIRST_WORD_ODDS[exchange.label]
        return [exchange.eagerness, rest * share, rest * (1 - share)]

    def _cut(self) -> tuple[list[int], list[int]]:
        """The tokens of an empty request before and after its text."""
        turn = [{"role": "user", "content": "§"}]
        text = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        before, after = text.removeprefix(self.tokenizer.bos_token or "").split("§")
        return self._encode(before), self._encode(after)

    def _turn(self, talk: Talk, message: dict[str, str]) -> tuple[int, int]:
        """Add a turn and the start of the reply, as the template writes them; where its text begins and ends."""
        text = self.tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        start = len(talk.ids)
        talk.ids += self._encode(text.removeprefix(self.tokenizer.bos_token or ""))
        return start, len(talk.ids)

    def _add_reply(self, talk: Talk, reply: str, skip: int, source: tuple[int, int]) -> None:
        """Add a reply and its end, to be learned but for the first ``skip`` tokens."""
        ids = self._encode(f"{reply}<|im_end|>\n")
        at = len(talk.ids) - 1
        talk.replies += range(at + skip, at + len(ids) - 1)
        start, end = source
        for i, j in enumerate(copied_from(talk.ids[start:end], ids[:-2])):
            if j is not None and i >= skip:
                talk.copies.append((at + i, start + j))
        talk.ids += ids

    def talk(self, offered: tuple[str, ...]) -> Talk:
        """Write a conversation: mostly one request, often without its reply; sometimes two.

        Args:
            offered: names of the tools in the prompt.

        Returns:
            The conversation.
        """
        talk = Talk()
        second = self.rng.random() < 0.1 * self.corpus.noise
        self._add(talk, self.corpus.draw(offered), second or self.rng.random() < 0.3)
        if second:
            self._add(talk, self.corpus.draw(offered), False)
        return talk

    def drill(self) -> Talk:
        """Write an exercise in copying: meaningless text, and the same text once more as the reply.

        Returns:
            A conversation without decisions.
        """
        talk = Talk()
        text = self.rng.choices(range(len(self.family.special), len(self.tokenizer)), k=self.rng.randint(8, 24))
        before, after = self._cut()
        talk.ids = [*before, *text, *after]
        at, start = len(talk.ids) - 1, len(before)
        first = self.rng.randrange(len(text) - 4)
        # The reply may start anywhere in the text, so its first token cannot be told.
        for i in range(first + 1, len(text)):
            talk.copies.append((at + i - first, start + i))
            talk.replies.append(at + i - first)
        talk.ids += text[first:]
        return talk

    def offer(self) -> list[dict[str, Any]]:
        """Choose the tools of a prompt: mostly all four in their order, else some in any order.

        Returns:
            The tools.
        """
        if self.rng.random() > 0.45 * self.corpus.noise:
            return self.tools
        return self.rng.sample(self.tools, self.rng.choice((1, 2, 2, 3, 3, 4)))

    def batches(self) -> Iterator[tuple[list[int], list[Talk]]]:
        """Write batches without end, of conversations of like length, so that little is padding.

        Yields:
            The tokens of a system turn, and conversations of ``TOKENS`` tokens at most that go on from it.
        """
        while True:
            pool = []
            for _ in range(4):
                offered = self.offer()
                names = tuple(tool["name"] for tool in offered)
                made = [self.drill() if self.rng.random() < self.drills else self.talk(names) for _ in range(240)]
                talks = sorted(made, key=lambda talk: len(talk.ids))
                while talks:
                    count = max(1, TOKENS // len(talks[-1].ids))
                    pool.append((self.system_turn(offered), talks[-count:]))
                    del talks[-count:]
            self.rng.shuffle(pool)
            yield from pool
