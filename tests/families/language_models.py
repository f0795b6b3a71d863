"""Language models that read prompts, tiny: Qwen and Gemma, with tokenizers that spell. Weights follow from the caller's seed."""

from __future__ import annotations

from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
)

WIDTH = 16
SIZES = {
    "hidden_size": WIDTH, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}  # fmt: skip
# As Qwen's own, without what no prompt has: system prompts, tools, thoughts.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """A token for every byte."""
    marks = ["<|im_start|>", "<|im_end|>"]
    vocab = {token: number for number, token in enumerate([*sorted(ByteLevel.alphabet()), "<|endoftext|>", *marks])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=marks)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def gemma_tokenizer(known: str = "") -> GemmaTokenizer:
    """A token for every byte, and for every word of a text that is long and always the same. It pads on the left, as Gemma's
    does, where its pipelines want the right."""
    vocab = {token: number for number, token in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])}
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    merges = []
    for word in dict.fromkeys(f"▁{word}" for word in known.split()):  # letter by letter
        merges += [(word[:end], word[end]) for end in range(1, len(word))]
        for token in (*word, *(word[:end] for end in range(2, len(word) + 1))):
            vocab.setdefault(token, len(vocab))
    return GemmaTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)))


def qwen3(tokenizer: Qwen2Tokenizer) -> Qwen3Model:
    return Qwen3Model(Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=2, head_dim=8, **SIZES))


def qwen25_vl(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 1, "rope_parameters": rotary, **SIZES}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def gemma2(tokenizer: GemmaTokenizer) -> Gemma2Model:
    return Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), num_hidden_layers=2, head_dim=8, sliding_window=256, **SIZES))


def strengthen(module: nn.Module, factor: float) -> nn.Module:
    """Larger matrices, so that fresh weights do not forget what they are told."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.data *= factor
    return module
