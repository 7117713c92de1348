"""The benchmark of `lfm25_alpaca.py`: keyword rules that label Alpaca, the four splits, the tools and the prompts.

Protocol: github.com/gyunggyung/Liquid-ASA at 800c9907 (Apache-2.0), ASA_LFM25_Pipeline.ipynb and
ASA_LFM25_LiquidPrompt.ipynb.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DOMAINS = ("math", "code", "search", "translation")
SHARES = {"cal": 1, "train": 1, "valid": 1, "test": 2}
ROWS_PER_SHARE = 40
SEED = 42


# --- The rules: regular expressions, matched in lower case. Their order and their spelling decide what they count.


def _any(words: str) -> re.Pattern[str]:
    """Any of some expressions; "_" stands for the space inside one."""
    return re.compile(words.replace(" ", "|").replace("_", " "))


DOMAIN_WORDS = {
    "math": _any(
        r"calcul comput solve equation formula \bsum\b product divid multiply percent fraction area volume circumferen"
        r" triangle circle rectangle convert.*to \bhow_much\b \bhow_many\b average median ratio proportion interest"
        r" mortgage speed distance temperature celsius fahrenheit kilometer gallon \bcos\b \bsin\b \btan\b factorial"
        r" logarithm square_root hypotenuse diagonal perimeter probability"
    ),
    "code": _any(
        r"python javascript java\b \bc\+\+ \bhtml\b \bcss\b \bsql\b function script algorithm debug compil execut"
        r" output variable \bloop\b \barray\b \bclass\b \bimport\b \bprint\b \bsort\b \bcode\b program def\s"
        r" for\s.*in\s while\s if\s.*else"
    ),
    "search": _any(
        r"who_(?:is|was|are|were) what_(?:year|country|city) when_(?:did|was) where_(?:is|was) capital_of"
        r" population_of president_of founded invented discovered located \bfind\b.*about search_for look_up latest"
        r" current recent today"
    ),
    "translation": _any(
        r"translat \bin_spanish\b \bin_french\b \bin_german\b \bin_chinese\b \bin_japanese\b \bin_korean\b"
        r" \bin_arabic\b \bin_italian\b \bin_portuguese\b \bin_russian\b how_do_you_say \bà\b \büber\b en_fran[cç]ais"
    ),
}
CONCEPT = _any(
    r"explain describe what_is_the_(?:concept|difference|significance|meaning|history|importance)"
    r" why_(?:is|are|do|does) how_does.*work compare_and_contrast pros_and_cons advantages definition_of"
)
NEEDS_TOOL = {
    "math": _any(r"calcul comput solve convert find_the determine how_much how_many"),
    "code": _any(r"write create implement build generate debug fix run execute test develop"),
    "search": re.compile(""),
    "translation": _any(
        r"translat.*to in_(?:spanish|french|german|chinese|japanese|korean|arabic|italian|portuguese|russian)"
    ),
}


def classify(instruction: str, context: str = "") -> tuple[str, int] | None:
    """Domain and label of an Alpaca row; None where no rule matches."""
    text = f"{instruction} {context}".strip().lower()
    matches = {name: len(words.findall(text)) for name, words in DOMAIN_WORDS.items()}
    domain = max(DOMAINS, key=lambda name: matches[name])  # the first of equals
    if not matches[domain]:
        return None
    needed = bool(NEEDS_TOOL[domain].search(text)) and not CONCEPT.search(text)
    if domain == "math":
        needed = needed and bool(re.search(r"\d", text))
    return domain, int(needed)


# --- The benchmark


def build_splits(
    rows: Sequence[Mapping[str, Any]], short_pools: str = "refuse", per_share: int = ROWS_PER_SHARE
) -> dict[str, list[dict[str, Any]]]:
    """The four splits, balanced in domain and label, by the port's generator and order.

    Args:
        rows: Alpaca's rows, in its order: instruction and input.
        short_pools: where a domain has too few texts of a label: "refuse", take "fewer" in every split, or fill up
            with "placeholders" as the port does.
        per_share: rows of each domain and label in CAL, TRAIN and VALID; TEST has twice as many.

    Raises:
        ValueError: a pool is too short, and it was not said what to do.
    """
    pools = _pools(rows)
    needed = per_share * sum(SHARES.values())
    short = {name: len(texts) for name, texts in pools.items() if len(texts) < needed}
    found = ", ".join(f"{domain} {label} {len(texts)}" for (domain, label), texts in pools.items())
    print(f"texts by domain and label: {found}; needed of each: {needed}", file=sys.stderr)
    if short and short_pools == "refuse":
        missing = ", ".join(f"{d} with label {label}: {n} ({needed - n} short)" for (d, label), n in short.items())
        raise ValueError(
            f"too few texts for {needed} of each domain and label: {missing}. The port fills such pools with "
            "made-up texts. Take --short-pools fewer for an honest benchmark, or --short-pools placeholders for the "
            "published one"
        )
    generator = np.random.RandomState(SEED)
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in SHARES}
    number = 0
    for (domain, label), texts in pools.items():
        generator.shuffle(texts)
        share = min(per_share, len(texts) // sum(SHARES.values())) if short_pools == "fewer" else per_share
        left = iter(texts)
        for split, times in SHARES.items():
            for _ in range(share * times):
                made_up = f"[placeholder {domain} {'tool' if label else 'nontool'} {number}]"
                row = {"instruction": next(left, made_up), "domain": domain, "label": label}
                splits[split].append({"id": f"{domain}-{split}-{label}-{number}", **row})
                number += 1
    for part in splits.values():
        generator.shuffle(part)  # type: ignore[arg-type]
    return splits


def _pools(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[str]]:
    """The texts of each domain and label, in the order in which they are drawn."""
    pools: dict[tuple[str, int], list[str]] = {(domain, label): [] for domain in DOMAINS for label in (0, 1)}
    for i, row in enumerate(rows):
        instruction, context = row.get("instruction"), row.get("input") or ""
        if not isinstance(instruction, str) or not isinstance(context, str):
            raise ValueError(f"row {i}: expected the texts 'instruction' and 'input', found {sorted(row)!r:.120}")
        if (kind := classify(instruction, context)) is not None:
            pools[kind].append(f"{instruction}\n{context}" if context else instruction)
    return pools


def is_made_up(row: Mapping[str, Any]) -> bool:
    """Whether a row's text is a placeholder."""
    return bool(re.fullmatch(r"\[placeholder \w+ (non)?tool \d+\]", row["instruction"]))


# --- The prompts: the benchmark's four tools, and its two ways of offering them


def _tool(name: str, description: str, **arguments: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": text} for key, text in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"name": name, "description": description, "parameters": parameters}


# Names and arguments are the protocol's; descriptions and the explicit prompt's sentences are worded anew.
TOOLS = [
    _tool("calculator", "Works out an arithmetic expression.", expression="the expression"),
    _tool("python_interpreter", "Runs Python code and gives back what it prints.", code="the code"),
    _tool("web_search", "Looks up something current on the web.", query="what to look up"),
    _tool(
        "translator",
        "Puts a text into another language.",
        text="the text",
        target_language="the language to put it into",
    ),
]
_EXPLICIT = "You can use tools. Where a request needs one, answer with a tool call {how}. These are the tools:\n"
LFM2_MARKERS = ("<|tool_call_start|>", "<|tool_call_end|>")
OTHER_MARKERS = ("<functioncall>", "</functioncall>")


def prompt_template(tokenizer: Any, prompts: str) -> str:
    """The tokenizer's chat template with the tools in a system turn of the benchmark's own.

    Args:
        tokenizer: the model's tokenizer.
        prompts: "explicit", which says how to call, or "liquid", which only lists the tools.
    """
    if prompts == "liquid":
        system, dump = "List of tools: ", "tools | tojson"
    else:
        start, end = markers(tokenizer)
        how = f"between {start} and {end}" if start in LFM2_MARKERS else f"that begins with {start}"
        system, dump = _EXPLICIT.format(how=how), "tools | tojson(indent=2)"
    turn = f"{{'role': 'system', 'content': {system!r} + ({dump})}}"
    own = f"{{%- if tools %}}{{%- set messages = [{turn}] + messages %}}{{%- set tools = none %}}{{%- endif %}}"
    return own + str(tokenizer.chat_template)


def markers(tokenizer: Any) -> tuple[str, str]:
    """The marks of a call: LFM2's own where the tokenizer has them, else those that the port's prompt names."""
    return LFM2_MARKERS if LFM2_MARKERS[0] in tokenizer.get_vocab() else OTHER_MARKERS
