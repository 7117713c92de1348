"""The tiny models of examples/ as GGUF files: python tests/support/gguf_files.py MODEL_FOLDER FILE [--type Q8_0]

Needs the package `gguf`. The file carries no tokenizer: that of the folder goes with it. Norms, convolutions and what
a quantisation cannot hold, since its rows are not whole blocks, stay in float32.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

FILE_TYPES = {"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16}
FILE_TYPES |= {"Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}

# What transformers calls a part of a block, and what GGUF does.
PARTS = {
    "lfm2": {
        "operator_norm": "attn_norm",
        "ffn_norm": "ffn_norm",
        "feed_forward.w1": "ffn_gate",
        "feed_forward.w2": "ffn_down",
        "feed_forward.w3": "ffn_up",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_output",
        "self_attn.q_layernorm": "attn_q_norm",
        "self_attn.k_layernorm": "attn_k_norm",
        "conv.conv": "shortconv.conv",
        "conv.in_proj": "shortconv.in_proj",
        "conv.out_proj": "shortconv.out_proj",
    },
    "qwen3": {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.down_proj": "ffn_down",
        "mlp.up_proj": "ffn_up",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
    },
}
PARTS["qwen2"] = PARTS["qwen3"]
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.embedding_norm.weight": "token_embd_norm.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(folder: Path, path: Path, kind: str = "F32", most_tensors: int = 0) -> Path:
    """Writes a tiny model's weights and numbers; `kind` is F32, F16, Q8_0 or Q4_0.

    With `most_tensors` the model is split into files of at most so many.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, config["model_type"], split_max_tensors=most_tensors)
    _write_numbers(writer, config)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_name(folder.name)
    for name, values in _tensors(folder, config["model_type"]):
        packed, wanted = values, Type[kind]
        if (
            values.ndim == 2
            and kind != "F32"
            and "shortconv.conv" not in name
            and not values.shape[1] % _block(wanted)
        ):
            packed = gguf.quants.quantize(values, wanted)
            writer.add_tensor(name, packed, raw_dtype=wanted)
        else:
            writer.add_tensor(name, packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _block(kind: Type) -> int:
    return int(gguf.GGML_QUANT_SIZES[kind][0])


def _tensors(folder: Path, family: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, weight in load_file(folder / "model.safetensors").items():
        values = np.ascontiguousarray(weight.float().numpy())
        if name in WHOLE:
            yield WHOLE[name], values
            continue
        _, _, block, part = name.split(".", 3)
        part, _, kind = part.rpartition(".")
        yield f"blk.{block}.{PARTS[family][part]}.{kind}", values[:, 0] if part == "conv.conv" else values


def _write_numbers(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads, kinds = config["num_attention_heads"], config["layer_types"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    shared = config["num_key_value_heads"]
    writer.add_head_count_kv([0 if kind == "conv" else shared for kind in kinds] if "conv" in kinds else shared)
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config.get("norm_eps") or config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if "conv_L_cache" in config:
        writer.add_shortconv_l_cache(config["conv_L_cache"])
    writer.add_tokenizer_model("no_vocab")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", default="F32", choices=list(FILE_TYPES))
    options = parser.parse_args()
    write_gguf(options.folder, options.file, options.type)


if __name__ == "__main__":
    main()
