"""A model of LFM2.5-1.2B's true shape with random weights, for `real_model.py`: what a training costs there.

    python tests/benchmarks/lfm25_shape.py FOLDER

2,048 wide, 16 blocks of its two kinds, 65,536 tokens, bfloat16: 2.2 GiB. Tokenizer and chat template, with LFM2.5's
list of tools and its call markers, are those of `examples/tiny_lfm2`. What it answers means nothing.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Lfm2Config, Lfm2ForCausalLM

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny_lfm2"
ATTENTION = (2, 5, 8, 10, 12, 14)


def lfm25_config(**more: Any) -> Lfm2Config:
    """The shape; `more` are further fields, such as the ids of special tokens."""
    return Lfm2Config(
        vocab_size=65536,
        hidden_size=2048,
        intermediate_size=12288,  # of which the model makes 8,192
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        layer_types=["full_attention" if block in ATTENTION else "conv" for block in range(16)],
        tie_word_embeddings=True,
        **more,
    )


def main() -> None:
    """Writes the model into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = lfm25_config(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = Lfm2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {sum(weight.numel() for weight in model.parameters()):,} weights")


if __name__ == "__main__":
    main()
