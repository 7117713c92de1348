"""Make the calibration data of this folder: ``python build.py`` (and ``--check`` to measure its shortcuts).

Every split has its own frames: a frame that fills CAL never fills TRAIN, VALID or TEST. Within a split each cell
(domain x label) has the same number of rows. The files depend on the seed only.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import frames

HERE = Path(__file__).resolve().parent
SEED = 20260204
SPLITS = {"cal": 40, "train": 40, "valid": 20, "test": 40}
SHARES = {"cal": 8, "train": 8, "valid": 5, "test": 9}
DOMAINS = ("math", "code", "search", "translation")
TOOL_OF = {"math": "calculator", "code": "python_interpreter", "search": "web_search", "translation": "translator"}
MAX_OVERLAP = 0.6
# By word-bounded grams this row was too near two of TEST.
REWRITTEN = {"train-271": "hi there, i own 516 shells and find 916 more, what have i got now please"}

Row = dict[str, Any]


def lines(text: str) -> list[str]:
    """Split a bank into its frames.

    Args:
        text: one frame a line.

    Returns:
        The lines that are not blank.
    """
    return [line for line in text.strip().splitlines() if line]


def fill(frame: str, values: dict[str, str]) -> str:
    """Put values into a frame's slots.

    Args:
        frame: text with ``{slot}`` marks.
        values: what to put in; braces that name no slot stay.

    Returns:
        The filled text.
    """
    return re.sub(r"\{(\w+)\}", lambda mark: values.get(mark[1], mark[0]), frame)


def draw_numbers(rng: random.Random) -> dict[str, str]:
    """Draw the number slots: a, b, c, d, p are awkward, s, t, e, sq small.

    Args:
        rng: source of chance.

    Returns:
        Slot name to text.
    """
    small = rng.sample(range(2, 10), 2)
    big = [str(rng.choice([rng.randint(213, 989), rng.randint(1037, 98_765)])) for _ in range(3)]
    return {
        "a": big[0],
        "b": big[1],
        "c": big[2],
        "d": f"{rng.randint(113, 19_999) / 100:.2f}",
        "p": str(rng.randint(13, 97)),
        "n": str(rng.randint(11, 60)),
        "s": str(small[0]),
        "t": str(small[1]),
        "e": str(rng.choice([4, 6, 8, 10, 12, 20])),
        "sq": str(rng.choice([4, 9, 16, 25, 36, 100])),
    }


def draw_values(rng: random.Random) -> dict[str, str]:
    """Draw one value for every slot.

    Args:
        rng: source of chance.

    Returns:
        Slot name to text.
    """
    values = draw_numbers(rng)
    for slot, bank in frames.FILLERS.items():
        first, second = rng.sample(bank.split("|"), 2)
        values |= {slot: first, f"{slot}2": second}
    values["code"] = fill(rng.choice(lines(frames.CODE)), values)
    task, code = fill(rng.choice(lines(frames.TASKS)), values).split(" => ")
    return values | {"task": task, "task_code": code}


def mistype(text: str, rng: random.Random) -> str:
    """Mistype one word of a frame, as people do; slots are left alone.

    Args:
        text: the frame.
        rng: source of chance.

    Returns:
        The frame with two letters swapped, one dropped or one doubled.
    """
    spots = [match for match in re.finditer(r"(?<![{\w])[a-z]{5,}(?![}\w])", text)]
    if not spots:
        return text
    spot = rng.choice(spots)
    word, at = spot[0], rng.randrange(1, len(spot[0]) - 2)
    way = rng.randrange(3)
    tail = [word[at + 1] + word[at] + word[at + 2 :], word[at + 1 :], word[at - 1 :]][way]
    return text[: spot.start()] + word[:at] + tail + text[spot.end() :]


def make_row(frame: str, domain: str, label: int, rng: random.Random) -> Row:
    """Fill one frame and dress it with an opening and an ending.

    Args:
        frame: a line of the bank.
        domain: family of the tool.
        label: 1 where the tool is needed.
        rng: source of chance.

    Returns:
        The row without its id.
    """
    values = draw_values(rng)
    text, _, argument = frame.partition(" => ")
    bare = fill(text, values)
    if rng.random() < 0.12:
        text = mistype(text, rng)
    words = rng.choice(frames.OPENINGS.split("|")) + fill(text, values) + rng.choice(frames.ENDINGS.split("|"))
    words = words.replace("??", "?").replace("?.", "?")
    if rng.random() < 0.3:
        words = words[0].upper() + words[1:]
    arguments = {
        "math": {"expression": fill(argument, values)},
        "code": {"code": fill(argument, values)},
        "search": {"query": bare},
        "translation": {"text": values["sent"], "target_language": values["lang"].capitalize()},
    }[domain]
    calls = [{"name": TOOL_OF[domain], "arguments": arguments}] if label else []
    return {"instruction": words, "label": label, "domain": domain, "gold_calls": calls}


def grams(text: str) -> frozenset[str]:
    """Cut a text into its character 4-grams.

    Args:
        text: any text.

    Returns:
        The set of 4-grams of the lower-cased text.
    """
    text = f" {text.lower()} "
    return frozenset(text[i : i + 4] for i in range(len(text) - 3))


def share_frames(bank: list[str], rng: random.Random) -> dict[str, list[str]]:
    """Deal a bank's frames to the four splits, no frame to two of them.

    Args:
        bank: all frames of one cell.
        rng: source of chance.

    Returns:
        Split name to its frames.
    """
    deck = rng.sample(bank, len(bank))
    shares = {}
    for split, size in SHARES.items():
        shares[split], deck = deck[:size], deck[size:]
    return shares


def build() -> dict[str, list[Row]]:
    """Make all four splits.

    Returns:
        Split name to rows, in a random order, ids given.
    """
    rng = random.Random(SEED)
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    seen: list[tuple[str, frozenset[str]]] = []
    for domain in DOMAINS:
        for label, kind in ((1, "TOOL"), (0, "PROSE")):
            shares = share_frames(lines(getattr(frames, f"{domain.upper()}_{kind}")), rng)
            for split, count in SPLITS.items():
                made = 0
                while made < count:
                    row = make_row(shares[split][made % len(shares[split])], domain, label, rng)
                    if is_new(row["instruction"], split, seen):
                        rows[split].append(row)
                        made += 1
    for split, some in rows.items():
        rng.shuffle(some)
        named = [{"id": f"{split}-{i:03d}"} | row for i, row in enumerate(some)]
        rows[split] = [row | {"instruction": REWRITTEN.get(row["id"], row["instruction"])} for row in named]
    return rows


def is_new(text: str, split: str, seen: list[tuple[str, frozenset[str]]]) -> bool:
    """Tell whether a text is unlike all others, and remember it if so.

    Args:
        text: candidate instruction.
        split: where it would go; only other splits are compared loosely.
        seen: split and 4-grams of what was taken so far; grows.

    Returns:
        False for a repetition, or a near duplicate of another split's row.
    """
    mine = grams(text)
    for other, theirs in seen:
        limit = 0.9 if other == split else MAX_OVERLAP
        if len(mine & theirs) > limit * len(mine | theirs):
            return False
    seen.append((split, mine))
    return True


def write(rows: dict[str, list[Row]]) -> None:
    """Write the splits as JSON lines.

    Args:
        rows: split name to rows.
    """
    for split, some in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (HERE / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")


def first_word_accuracy(fit: list[Row], test: list[Row]) -> float:
    """Score the guess "the label this first word mostly has".

    Args:
        fit: rows to count on.
        test: rows to score.

    Returns:
        Accuracy on ``test``; a word never met counts as label 0.
    """
    votes: dict[str, int] = {}
    for row in fit:
        word = row["instruction"].lower().split()[0]
        votes[word] = votes.get(word, 0) + (1 if row["label"] else -1)
    hits = [(votes.get(row["instruction"].lower().split()[0], 0) > 0) == bool(row["label"]) for row in test]
    return sum(hits) / len(hits)


def near_duplicates(rows: dict[str, list[Row]], limit: float = 0.8) -> Iterator[tuple[float, str, str]]:
    """Find alike rows of different splits by character 3-5-gram TF-IDF.

    Args:
        rows: split name to rows.
        limit: smallest cosine that counts.

    Yields:
        Cosine and the two texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    flat = [(split, row["instruction"]) for split, some in rows.items() for row in some]
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(3, 5)).fit_transform([text for _, text in flat])
    pairs = (vectors @ vectors.T).tocoo()
    for i, j, cosine in zip(pairs.row, pairs.col, pairs.data, strict=True):
        if i < j and cosine > limit and flat[i][0] != flat[j][0]:
            yield float(cosine), flat[i][1], flat[j][1]


def check(rows: dict[str, list[Row]]) -> None:
    """Print how far shallow features give the label away.

    Args:
        rows: split name to rows.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline

    fit, test = rows["cal"] + rows["train"], rows["test"]
    truth = [row["label"] for row in test]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    model.fit([row["instruction"] for row in fit], [row["label"] for row in fit])
    scores = model.predict_proba([row["instruction"] for row in test])[:, 1]
    print(f"bag of words AUC        {roc_auc_score(truth, scores):.3f}")
    for domain in DOMAINS:
        mine = [i for i, row in enumerate(test) if row["domain"] == domain]
        print(f"  {domain:<21} {roc_auc_score([truth[i] for i in mine], [scores[i] for i in mine]):.3f}")
    print(f"first word accuracy     {first_word_accuracy(fit, test):.3f}")
    lengths = [len(row["instruction"]) for row in test]
    print(f"length AUC              {roc_auc_score(truth, lengths):.3f}")
    for domain in DOMAINS:
        mine = [i for i, row in enumerate(test) if row["domain"] == domain]
        print(f"  {domain:<21} {roc_auc_score([truth[i] for i in mine], [lengths[i] for i in mine]):.3f}")
    pairs = sorted(near_duplicates(rows), reverse=True)
    print(f"near duplicates (> 0.8) {len(pairs)}")
    for cosine, one, two in pairs[:10]:
        print(f"  {cosine:.2f}  {one!r} / {two!r}")


def main() -> None:
    """Write the data, or measure it with ``--check``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="print shortcut measures (needs scikit-learn)")
    rows = build()
    if parser.parse_args().check:
        check(rows)
    else:
        write(rows)


if __name__ == "__main__":
    main()
