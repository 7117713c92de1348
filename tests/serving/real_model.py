"""Does vLLM decide and begin as transformers does, with a real model? python tests/serving/real_model.py ADAPTER MODEL

ADAPTER and MODEL are folders or Hub ids. Asks rows of examples/data, in transformers one at a time, and prints the
table of `asa-adapter verify`. Decisions must be equal but where p lies within .01 of a threshold; one first token may
differ where the bare model's do not. The exit code is 1 where that does not hold.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from asa_adapter import ASAAdapter, load_splits
from asa_adapter.data.rows import row_messages
from asa_adapter.verification.asking_model import ask
from asa_adapter.verification.asking_vllm import ask_vllm
from asa_adapter.verification.samples import Sample
from asa_adapter.verification.two_records import TwoRecords, compared_records

MEMORY = {"gpu_memory_utilization": 0.4}  # on a CPU of its memory, which others use too
DATA = Path(__file__).resolve().parents[2] / "examples" / "data"


def main() -> int:
    """Asks both engines and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--prompts", type=int, default=64, help="number of prompts (default: 64)")
    parser.add_argument("--engine-args", default="{}", help="JSON of further arguments of vllm.LLM")
    options = parser.parse_args()
    logging.set_verbosity_error()
    adapter = ASAAdapter.from_pretrained(options.adapter)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = list(load_splits(DATA)["test"])
    chosen = [rows[i * len(rows) // options.prompts] for i in range(options.prompts)]
    samples = [Sample(row_messages(row)).offering(adapter.config) for row in chosen]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()
    expected = ask(adapter, model, tokenizer, samples, batch_size=1)
    del model  # leaves the memory to vLLM
    engine = {"model": options.model, "dtype": options.dtype, **MEMORY, **json.loads(options.engine_args)}
    found, seconds = ask_vllm(adapter, options.adapter, tokenizer, samples, engine)
    lines = compared_records(adapter.config, expected, found)
    names = (Path(options.adapter).name, Path(options.model).name, adapter.digest())
    print(TwoRecords(*names, lines, str(expected.where), str(found.where), seconds).markdown())
    differs = [line.differs for line in lines if line.differs]
    return int(any(what != "first token" for what in differs) or len(differs) > 1)


if __name__ == "__main__":
    sys.exit(main())
