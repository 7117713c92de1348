"""The two model families: their configurations, chat templates and ways of writing a call."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, Lfm2Config, Lfm2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer

VOCABULARY = 3072

LFM2_TEMPLATE = """\
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

QWEN3_TEMPLATE = """\
{%- set system = messages[0].content if messages and messages[0].role == "system" else "" -%}
{%- if system or tools -%}
{{- "<|im_start|>system\\n" + (system or "") -}}
{%- if tools -%}
{{- ("\\n\\n" if system else "") + "# Tools\\n<tools>" -}}
{%- for tool in tools -%}
{{- "\\n" + (tool | tojson) -}}
{%- endfor -%}
{{- "\\n</tools>\\nA call is JSON between <tool_call> and </tool_call>." -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == "tool" -%}
{{- "<|im_start|>user\\n<tool_response>\\n" + message.content + "\\n</tool_response><|im_end|>\\n" -}}
{%- elif not (loop.first and message.role == "system") -%}
{{- "<|im_start|>" + message.role + "\\n" + (message.content or "") -}}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function or call -%}
{{- "" if loop.first and not message.content else "\\n" -}}
{{- "<tool_call>\\n" + ({"name": function.name, "arguments": function.arguments} | tojson) + "\\n</tool_call>" -}}
{%- endfor -%}
{{- "<|im_end|>\\n" -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- "<|im_start|>assistant\\n" -}}
{%- endif -%}
"""


def lfm2_call(name: str, arguments: dict[str, str]) -> str:
    """Write a call as LFM2 does.

    Args:
        name: of the tool.
        arguments: by name.

    Returns:
        A Pythonic list of one call between special tokens.
    """
    inside = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"<|tool_call_start|>[{name}({inside})]<|tool_call_end|>"


def qwen3_call(name: str, arguments: dict[str, str]) -> str:
    """Write a call as Qwen3 does.

    Args:
        name: of the tool.
        arguments: by name.

    Returns:
        A JSON object between ordinary tokens.
    """
    inside = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{inside}\n</tool_call>"


def lfm2_model(tokenizer: FastTokenizer) -> Lfm2ForCausalLM:
    """Make the untrained LFM2.

    Args:
        tokenizer: its vocabulary size and special tokens are taken over.

    Returns:
        A model of about 2.6 million parameters.
    """
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=384,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=8,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        layer_types=[{"c": "conv", "a": "full_attention"}[kind] for kind in "ccacacac"],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    return Lfm2ForCausalLM(config)


def qwen3_model(tokenizer: FastTokenizer) -> Qwen3ForCausalLM:
    """Make the untrained Qwen3.

    Args:
        tokenizer: its vocabulary size and special tokens are taken over.

    Returns:
        A model of about 2.2 million parameters.
    """
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=5,
        num_key_value_heads=5,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config)


@dataclass(frozen=True)
class Family:
    """What differs between the two models.

    Attributes:
        special: special tokens: padding, start of text (or the same as padding), end of turn, others.
        ordinary: added tokens that are not special.
        template: chat template.
        call: writes a call.
        model: makes the untrained model.
        parser: name of the call format in `asa_adapter`.
        copy_layers: attention layers (counted among the attention layers) that are shown where to copy from.
        label_layer: layer at whose output the label shall be readable.
        embedding_std: spread of the untrained token embeddings; wide ones stay distinct, which copying needs.
        sharpness: untrained gain of the normed queries and keys; at 1 no place of a long prompt can be singled out.
    """

    special: tuple[str, ...]
    ordinary: tuple[str, ...]
    template: str
    call: Callable[[str, dict[str, str]], str]
    model: Callable[[FastTokenizer], Any]
    parser: str
    copy_layers: tuple[int, ...]
    label_layer: int
    embedding_std: float
    sharpness: float

    @property
    def call_start(self) -> str:
        """The token with which a call begins."""
        return self.call("f", {}).partition("[" if self.parser == "lfm2" else "\n")[0]


FAMILIES = {
    "lfm2": Family(
        special=(
            "<|pad|>",
            "<|startoftext|>",
            "<|im_end|>",
            "<|im_start|>",
            "<|tool_call_start|>",
            "<|tool_call_end|>",
        ),
        ordinary=(),
        template=LFM2_TEMPLATE,
        call=lfm2_call,
        model=lfm2_model,
        parser="lfm2",
        copy_layers=(1, 2),
        label_layer=5,
        embedding_std=0.1,
        sharpness=2.0,
    ),
    "qwen3": Family(
        special=("<|endoftext|>", "<|endoftext|>", "<|im_end|>", "<|im_start|>"),
        ordinary=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
        template=QWEN3_TEMPLATE,
        call=qwen3_call,
        model=qwen3_model,
        parser="hermes",
        copy_layers=(3, 4),
        label_layer=3,
        embedding_std=0.1,
        sharpness=1.0,
    ),
}


def make_tokenizer(family: Family, texts: list[str]) -> FastTokenizer:
    """Learn a byte-level vocabulary; numbers are cut into pairs of digits.

    Args:
        family: its special tokens and template are used.
        texts: text like the training text.

    Returns:
        The tokenizer with its chat template.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d{1,2}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys(family.special))
    pairs = [f"{number:02d}" for number in range(100)] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(family.ordinary),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*texts, *pairs], trainer)
    inner.add_tokens([AddedToken(token, normalized=False, special=False) for token in family.ordinary])
    start = family.special[1] if family.special[1] != family.special[0] else None
    if start:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", pair=f"{start} $A $B", special_tokens=[(start, 1)]
        )
    tokenizer = FastTokenizer(
        tokenizer_object=inner,
        pad_token=special[0],
        bos_token=start,
        eos_token=family.special[2],
        additional_special_tokens=list(family.special[3:]),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.chat_template = family.template
    return tokenizer


def make_model(family: Family, tokenizer: FastTokenizer) -> Any:
    """Make the untrained model of a family.

    Args:
        family: which one.
        tokenizer: its vocabulary size and special tokens are taken over.

    Returns:
        The model.
    """
    model = family.model(tokenizer)
    model.get_input_embeddings().weight.data.normal_(std=family.embedding_std)
    for name, weight in model.named_parameters():
        if name.split(".")[-2] in ("q_layernorm", "k_layernorm", "q_norm", "k_norm"):
            weight.data.fill_(family.sharpness)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model
