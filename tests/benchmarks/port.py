"""Extraction, screen and hook, beside the way of the method's first public port and beside the floor; for `speed.py`.

Everything is random or ships with the repository: an LFM2 of hidden size 512 and 16 blocks (68 million weights), one
of hidden size 2048 for the hook, and the tiny LFM2 for the screen's agreement with generation. All ratios come from
one run on one thread; times are medians of CPU time, which is what a clock shows when nothing else runs.

`port` does what the port does, in its manner: one prompt at a time, rendered to text and tokenised again, all
logits, every state through the CPU; scikit-learn in the hook; one full generation for each sample and setting. Where
that would take hours it is timed on a few samples, and multiplied. `floor` is the matrix products of the decoder
blocks over each token that has to be run, once, all tokens together.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.linear_model
import sklearn.preprocessing
import torch
import transformers

from asa_adapter import (
    ASAAdapter,
    ASAConfig,
    ASATrainer,
    ASATrainingArguments,
    Probes,
    Router,
    SteeringVectors,
    ToolCallParser,
    load_splits,
)
from asa_adapter.data.prompts import encode_rows
from asa_adapter.data.rows import read_tools
from asa_adapter.engine.prefix_tree import common_tokens, tokens_run
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.evaluation.first_tokens import Push, first_tokens
from asa_adapter.modeling.fingerprint import model_fingerprint
from asa_adapter.modeling.forward import CACHE, evaluation_mode
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.states import collect_hidden_states

ROOT = Path(__file__).resolve().parents[2]
TINY, DATA = ROOT / "examples" / "tiny_lfm2", ROOT / "examples" / "data"
DOMAINS = ("code", "math", "search", "translation")
PROMPTS, SETTINGS, NEW_TOKENS, LONGEST_SUFFIX = (64, 256), 8, 128, 30


def random_lfm2(hidden: int, layers: int, feed_forward: int, vocabulary: int = 65536) -> Any:
    """An LFM2 with random weights: of three blocks two are short convolutions, as in LFM2-350M."""
    torch.manual_seed(0)
    config = transformers.Lfm2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        intermediate_size=feed_forward,
        block_auto_adjust_ff_dim=False,
        vocab_size=vocabulary,
        layer_types=["full_attention" if i % 3 == 2 else "conv" for i in range(layers)],
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def random_adapter(model: Any, hidden: int, layer: int) -> ASAAdapter:
    """An adapter for four domains, fitted on random states; its gate is nearly always open."""
    generator = np.random.default_rng(0)
    names = [DOMAINS[i % 4] for i in range(160)]
    labels = np.array([(i // 4) % 2 for i in range(160)])
    states = generator.normal(size=(160, hidden)) + labels[:, None]
    config = ASAConfig(
        hidden_size=hidden,
        num_layers=len(decoder_blocks(model)),
        layer=layer,
        domains=DOMAINS,
        alpha=1.0,
        tau=0.5,
        base_model_fingerprint=model_fingerprint(model),
    )
    vectors = SteeringVectors.fit(states, labels.tolist(), names, DOMAINS)
    return ASAAdapter(config, vectors, Router.fit(states, names), Probes.fit(states, labels, names))


def turns(repeats: int, *works: Callable[[], Any]) -> list[float]:
    """Median time of each work; they take turns, so that a busy machine is busy for all of them."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(1 + repeats):
        for work, taken in zip(works, times, strict=True):
            began = time.process_time()
            work()
            if turn:  # the first one warms up
                taken.append(time.process_time() - began)
    return [statistics.median(taken) for taken in times]


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median time of some work."""
    return turns(repeats, work)[0]


def calibration_rows(tokenizer: Any, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[list[int]]]:
    """Rows of the shipped data that offer the same long list of tools, those tools, and the prompts."""
    tools = read_tools(DATA / "tools.json")
    prefix = 0
    while prefix < 300:
        tools = [*tools, {**tools[0], "name": f"other_{len(tools)}"}]
        prefix = common_tokens(*encode_rows(tokenizer, [{"instruction": "a"}, {"instruction": "b"}], tools))
    rows = [{"instruction": row["instruction"], "label": row["label"]} for row in load_splits(DATA)["train"]]
    prompts = encode_rows(tokenizer, rows, tools)
    short = [i for i, prompt in enumerate(prompts) if len(prompt) <= prefix + LONGEST_SUFFIX][:count]
    return [rows[i] for i in short], tools, [prompts[i] for i in short]


def ports_prompt(tokenizer: Any, row: dict[str, Any], tools: Any) -> Any:
    chat = [{"role": "user", "content": row["instruction"]}]
    text = tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, return_tensors="pt", add_special_tokens=False)


def ports_states(model: Any, tokenizer: Any, rows: list[dict[str, Any]], tools: Any) -> np.ndarray:
    """(N, L, D): one prompt after the other, all logits, each state through the CPU."""
    found = []
    with torch.no_grad():
        for row in rows:
            output = model(**ports_prompt(tokenizer, row, tools), output_hidden_states=True, use_cache=False)
            found.append([state[0, -1].float().cpu().numpy() for state in output.hidden_states[1:]])
    return np.array(found)


def ports_hook(hidden: int) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
    """A steering hook in the port's manner: the state goes to the CPU, scikit-learn decides."""
    generator = np.random.default_rng(0)
    states, y = generator.normal(size=(160, hidden)), np.arange(160) % 2
    scaler = sklearn.preprocessing.StandardScaler().fit(states)
    router = sklearn.linear_model.LogisticRegression().fit(states, np.arange(160) % 4)
    probes = [sklearn.linear_model.LogisticRegression().fit(states, y) for _ in range(4)]
    vectors = generator.normal(size=(4, hidden))

    def hook(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        if output.shape[1] == 1:
            return output
        state = scaler.transform(output[:, -1].detach().float().cpu().numpy())
        domain = int(router.predict(state)[0])
        p = float(probes[domain].predict_proba(state)[0, 1])
        gate = 1 if p >= 0.5 else -1
        steered = output.clone()
        steered[:, -1] += gate * torch.tensor(vectors[domain], dtype=output.dtype)
        return steered

    return hook


def matrix_products(model: Any, tokens: int) -> Callable[[], None]:
    """The products of every linear layer in the decoder blocks with so many tokens."""
    linear = [m for m in decoder_blocks(model).modules() if isinstance(m, torch.nn.Linear)]
    inputs = {width: torch.randn(tokens, width) for width in {m.in_features for m in linear}}

    def work() -> None:
        with torch.no_grad():
            for module in linear:
                module(inputs[module.in_features])

    return work


def extraction(model: Any, tokenizer: Any, count: int, repeats: int) -> dict[str, Any]:
    rows, tools, prompts = calibration_rows(tokenizer, count)
    shared, unique = common_tokens(min(prompts), max(prompts)), tokens_run(prompts)
    few = rows[:3]

    def ours() -> torch.Tensor:
        return collect_hidden_states(model, tokenizer, rows, tools=tools, progress=False).states

    alone, found = ports_states(model, tokenizer, few, tools), ours()
    # The port's last entry is behind the final norm, not the block's output; it is left out of the comparison.
    expected = torch.from_numpy(alone[:, :-1]).transpose(0, 1)
    error = (found[:-1, : len(few)] - expected).norm(dim=2) / expected.norm(dim=2)
    mine, port, floor = turns(
        repeats, ours, lambda: ports_states(model, tokenizer, few, tools), matrix_products(model, unique)
    )
    port *= len(rows) / len(few)
    return {
        "rows": len(rows),
        "prefix_tokens": shared,
        "longest_suffix": max(map(len, prompts)) - shared,
        "all_tokens_over_unique": sum(map(len, prompts)) / unique,
        "seconds": mine,
        "port_seconds": port,
        "floor_seconds": floor,
        "port_over_ours": port / mine,
        "ours_over_floor": mine / floor,
        "largest_relative_difference": float(error.max()),
    }


def screen(model: Any, tokenizer: Any, repeats: int) -> dict[str, Any]:
    """Two steps, two shares of the global direction, two confidences, at one layer: eight settings, eight pushes."""
    rows, tools, prompts = calibration_rows(tokenizer, 64)
    generator = torch.Generator().manual_seed(0)
    domain = torch.arange(len(prompts)) % 4
    pushes = [Push(9, torch.randn(4, 512, generator=generator), domain) for _ in range(SETTINGS)]
    blocks = decoder_blocks(model)

    def ours() -> Any:
        return first_tokens(model, blocks, prompts, pushes, [5], pad_id=0, batch_size=32, progress=False)

    def ports_answer() -> None:
        inputs = ports_prompt(tokenizer, rows[0], tools)
        with blocks[9].register_forward_hook(ports_hook_512):
            model.generate(
                **inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
            )

    ports_hook_512 = ports_hook(512)
    mine, port = turns(repeats, ours, ports_answer)
    port *= len(rows) * SETTINGS
    return {
        "rows": len(rows),
        "settings": SETTINGS,
        "seconds": mine,
        "port_seconds": port,
        "port_over_ours": port / mine,
    }


def evaluation(model: Any, tokenizer: Any, repeats: int) -> dict[str, Any]:
    """Whether the bare model and the steered one begin a call, from one prefill and from two."""
    rows, tools, _ = calibration_rows(tokenizer, 64)
    adapter = random_adapter(model, 512, layer=9)
    parser = ToolCallParser.from_tokenizer(tokenizer)
    asks = Evaluation(model, tokenizer, parser, tools, max_new_tokens=16, batch_size=32, progress=False)
    variants = {"base": None, "asa": adapter}
    together, apart = turns(
        repeats,
        lambda: asks.answers_of_each(rows, variants, until_call=True),
        lambda: [asks.answers(rows, one, until_call=True) for one in variants.values()],
    )
    return {"rows": len(rows), "new_tokens": 16, "seconds": together, "apart_seconds": apart}


def agreement() -> dict[str, Any]:
    """Screen and generation on VALID with the tiny LFM2: the share of rows of which both say the same."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    arguments = ASATrainingArguments(
        layers=(len(decoder_blocks(model)) - 2,),
        alphas=(0.5, 1.0),
        taus=(0.6,),
        betas=(1.0,),
        finalists=2,
        progress=False,
    )
    trainer = ASATrainer(model, tokenizer, load_splits(DATA), arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows that stand in two splits do not matter here
        trainer.train()
    shares = [finalist["screen_agreement"] for finalist in trainer.report["valid"]["finalists"]]
    return {"finalists": len(shares), "rows": trainer.report["splits"]["valid"]["rows"], "lowest": min(shares)}


def hook(model: Any, hidden: int, bare: Any) -> dict[str, Any]:
    """What steering adds to a prefill of 330 tokens and to each step after it, timed inside."""
    adapter = random_adapter(model, hidden, layer=1)
    state, ids = torch.randn(1, 330, hidden), torch.randint(3, 60, (1, 330))
    keywords = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    block = decoder_blocks(model)[1]
    with torch.no_grad(), adapter.attach(model) as handle:
        steering: Any = handle._steering

        def prefill(**asked: Any) -> None:
            steering.running().locate({"input_ids": ids}, True, True, asked)
            handle._steer(block, (), {}, state)

        added = seconds(lambda: steering._generate(prefill, **keywords), 300)
        prepare = model.__dict__["prepare_inputs_for_generation"]
        original, prepare._original = prepare._original, lambda **_keywords: {}
        identity, hooked = torch.nn.Identity(), torch.nn.Identity()
        hooked.register_forward_hook(handle._steer, prepend=True, with_kwargs=True)

        def steps(**_keywords: Any) -> None:
            call = steering.running()
            call.locate({"input_ids": ids}, True, True, keywords)
            handle._steer(block, (), {}, state)
            call.close()
            for _ in range(100):
                prepare(input_ids=ids)
                hooked(state)

        step = (
            seconds(lambda: steering._generate(steps, **keywords), 50)
            - seconds(lambda: [identity(state) for _ in range(100)], 50)
        ) / 100
        prepare._original = original
    theirs = ports_hook(hidden)
    port = seconds(lambda: theirs(None, None, state), 100)
    with torch.no_grad():
        cache = getattr(bare(ids, use_cache=True), CACHE)
        bare_step = seconds(lambda: bare(ids[:, :1], **{CACHE: cache}, use_cache=True), 20)
    return {
        "hidden": hidden,
        "prefill_ms": 1e3 * added,
        "port_prefill_ms": 1e3 * port,
        "step_us": 1e6 * step,
        "bare_step_ms_of_70M": 1e3 * bare_step,
        "share_of_a_step": step / bare_step,
    }


def loading(model: Any, hidden: int) -> dict[str, Any]:
    """Loading from a folder and attaching, the check of the block being done already; and the payload's size."""
    adapter = random_adapter(model, hidden, layer=1)
    adapter.attach(model).remove()
    with tempfile.TemporaryDirectory() as folder:
        adapter.save_pretrained(folder)
        payload = {p.name: p.stat().st_size for p in Path(folder).iterdir() if p.suffix in (".safetensors", ".skops")}
        load = seconds(lambda: ASAAdapter.from_pretrained(folder), 20)
        both = seconds(lambda: ASAAdapter.from_pretrained(folder).attach(model).remove(), 20)
    return {"hidden": hidden, "load_ms": 1e3 * load, "load_and_attach_ms": 1e3 * both, "payload_bytes": payload}


def peak_memory(rows: int) -> float:
    """MiB that extraction of so many rows adds to the process, in a process of its own."""
    command = [sys.executable, __file__, str(rows)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_of(rows: int) -> float:
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    few, tools, _ = calibration_rows(tokenizer, 32)
    with torch.no_grad():
        model(**ports_prompt(tokenizer, few[0], tools), logits_to_keep=1)
    before = _peak()
    many = [few[i % len(few)] for i in range(rows)]
    with tempfile.TemporaryDirectory() as folder:
        collect_hidden_states(model, tokenizer, many, tools=tools, progress=False, file=Path(folder, "states.npy"))
    return (_peak() - before) / 1024


def _peak() -> int:
    """KiB of memory that this process had at most (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def table(found: dict[str, Any]) -> str:
    """The numbers with their targets, as Markdown."""
    lines = ["| | ours | port | floor | ratio | target |", "|---|---:|---:|---:|---:|---|"]
    for e in found["extraction"]:
        ours, port, floor = (f"{e[key]:.2f} s" for key in ("seconds", "port_seconds", "floor_seconds"))
        name = f"states of {e['rows']} prompts ({e['prefix_tokens']} tokens shared)"
        lines.append(f"| {name} | {ours} | {port} | | {e['port_over_ours']:.1f} x | at least 10 x |")
        lines.append(f"| the same, beside the floor | {ours} | | {floor} | {e['ours_over_floor']:.2f} | at most 1.5 |")
    s, h, load = found["screen"], found["hook"], found["loading"]
    lines.append(
        f"| screen of {s['settings']} settings, {s['rows']} prompts | {s['seconds']:.1f} s "
        f"| {s['port_seconds']:.0f} s | | {s['port_over_ours']:.0f} x | at least 100 x |"
    )
    e = found["evaluation"]
    lines.append(
        f"| {e['new_tokens']} tokens bare and steered, {e['rows']} prompts, not two prefills | {e['seconds']:.1f} s "
        f"| | | {e['apart_seconds'] / e['seconds']:.2f} x | |"
    )
    lines.append(
        f"| screen and generation agree | {found['agreement']['lowest']:.1%} | | | | at least 99 % of the rows |"
    )
    lines.append(
        f"| added to a prefill, hidden 2048 | {h['prefill_ms']:.2f} ms | {h['port_prefill_ms']:.2f} ms | "
        f"| {h['port_prefill_ms'] / h['prefill_ms']:.1f} x | at most 0.3 ms |"
    )
    lines.append(
        f"| added to a step | {h['step_us']:.1f} µs | | {h['bare_step_ms_of_70M']:.1f} ms "
        f"| {h['share_of_a_step']:.2%} | at most 1 % of a bare step (70 M) |"
    )
    lines.append(f"| load and attach, hidden 2048 | {load['load_and_attach_ms']:.0f} ms | | | | at most 100 ms |")
    size = sum(load["payload_bytes"].values()) / 1000
    lines.append(f"| payload, hidden 2048, 4 domains | {size:.0f} kB | 221 kB | | | at most 128 kB |")
    growth = ", ".join(f"{rows} rows: {mib:.0f} MiB" for rows, mib in found["memory"].items())
    lines.append(f"| memory of extraction | {growth} | | | | bounded by the batch |")
    return "\n".join(lines)


def measured(repeats: int) -> dict[str, Any]:
    """All numbers of this file."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    model, wide = random_lfm2(512, 16, 768), random_lfm2(2048, 3, 4096, vocabulary=1024)
    with evaluation_mode(model), evaluation_mode(wide):
        found = {
            "extraction": [extraction(model, tokenizer, count, repeats) for count in PROMPTS],
            "screen": screen(model, tokenizer, repeats),
            "evaluation": evaluation(model, tokenizer, repeats),
            "hook": hook(wide, 2048, model),
            "loading": loading(wide, 2048),
            "memory": {rows: peak_memory(rows) for rows in (512, 4096, 20000)},
        }
    return {**found, "agreement": agreement()}


if __name__ == "__main__":  # how much memory so many rows take can be told in a process of its own only
    arguments = argparse.ArgumentParser(description=memory_of.__doc__)
    arguments.add_argument("rows", type=int)
    torch.set_num_threads(1)
    print(memory_of(arguments.parse_args().rows))
