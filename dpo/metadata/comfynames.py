"""What the names of ComfyUI's inputs and nodes say. Nodes are known by their inputs rather than by their own names, because
there are thousands of kinds.

A role or a trait is a sum of bits. The names in use are few and asked for millions of times, so the answers are remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Roles of an input.
POSITIVE, NEGATIVE = 1, 2  # what is wanted, what is not: text or conditioning
CONDITIONING = 4  # one side of it
BUNDLE = 8  # carries both sides in one wire
TEXT = 16  # words, if it is a text
NO_PICTURE = 32  # does not lead to the picture that a node works on
NO_SETTING = 64  # does not lead to a sampler's own settings: what drew before it, and encoders, have theirs
NO_NUMBER = 128  # the same, and not to its seed, steps or guidance
NO_WORDS = 256  # does not lead to words
NO_LATENT = 512  # does not lead to the latent a sampler began with
NO_SENTENCE = 2048  # not words that a prompt is made of, even where nothing else is
NO_GUIDANCE = 1024  # does not lead to the guidance that conditioning has built in

# Traits of a node.
REROUTE, SWITCH, JOIN, SHOW, LANGUAGE_MODEL, NO_SAMPLER, SAMPLER, PIPE = 1, 2, 4, 8, 16, 32, 64, 128
SAVES, SHOWS = 256, 512  # pictures

MAX_NAME = 80  # characters; longer ones say nothing, and are not remembered

_BEGIN = "(base_|text_|prompt_|main_|optional_)?"
_END = r"(_prompt|_text|_cond|_conditioning|_prompt_text)?(_?([a-l\d]|[AB]|NEW|base))?$"
_ASIDE = (
    "positive|(.*_)?(negative|uncond|cond|patch)|latent|image|pixels|samples|clip|vae|text|prompt|control|mask|upscale_model"
    "|style|bbox|sam_"
)
_ROLES = {
    POSITIVE: re.compile(rf"{_BEGIN}positive{_END}|cond1$|pos(_prompt|_cond)?(_?[glr])?$|prompt_pos$"),
    NEGATIVE: re.compile(rf"{_BEGIN}negative{_END}|neg(_conditioning|_prompt|_cond)?(_?[glr])?$|uncond$|prompt_neg$|n_prompt$"),
    CONDITIONING: re.compile(r"(?!condition$|cond$)(?!.*(neg|uncond)).*cond"),
    BUNDLE: re.compile(r".*pipe(line)?(_opt)?$|.*ctx|guider$|.*_embeds$|context$|sdxl_tuple$"),
    TEXT: re.compile(
        r"(text|prompts?|user_prompt|(prompt|input|multiline)_text|text_(prompt|input|string|data_opt)|prompt_input|input_string"
        r"|string|json_string|str|wildcard_text|value|f_string|clip_[lgh]|t5xxl|llama|bert|mt5xl|qwen25_7b|tags|lyrics|caption"
        r"|model\.prompt|instruction|description|main_prompt|source)(_?[\da-z])?(_\d)?$",
        re.IGNORECASE,
    ),
    NO_PICTURE: re.compile(
        r"positive|negative|(.*_)?cond|guider|model|clip|vae|noise|sigmas|sampler$|(?!text_embeds)text|prompt|control_?net|mask"
        r"|reference|style|ipadapter|insightface|upscale_model|.*lora"
    ),
    NO_SETTING: re.compile(rf"(?!.*_embeds)({_ASIDE})"),
    NO_NUMBER: re.compile(rf"(?!.*_embeds)({_ASIDE})|model|.*lora"),
    NO_WORDS: re.compile(
        "image|pixels|latent|samples|model|clip|vae|mask|seed|audio|video|control|sigmas|noise|sampler|guider", re.IGNORECASE
    ),
    NO_SENTENCE: re.compile(
        ".*(exclu|neg|system|file|path|folder|model|task|url|format|style|regex|pattern|delim|separ|prefix|suffix)"
    ),
    NO_LATENT: re.compile("positive|negative|cond|model|clip|vae|text|sigmas|noise|guider"),
    NO_GUIDANCE: re.compile("negative|latent|image|pixels|samples|clip|vae|model"),
}
_TRAITS = {
    REROUTE: re.compile("[Rr]eroute"),
    SWITCH: re.compile(r"switch|selector|if ?else|conditionalbranch|\bselect\b", re.IGNORECASE),
    JOIN: re.compile(
        "concat|join|merge.?(text|string)|text.?(merge|combine|append)|combine.?(text|string|prompt)"
        "|(string|prompt).?(combine|append)",
        re.IGNORECASE,
    ),
    SHOW: re.compile("show.?(text|any)|display|preview.?(any|text)|preview as text", re.IGNORECASE),
    LANGUAGE_MODEL: re.compile(
        "textgenerate|gemininode|openaichat|claudenode|openrouter|ollama|llm|chatgpt|florence|joy_?caption|qwen.?vl|llava"
        "|moondream|captioner|describe|vision_?chat|bytedanceseednode|prompt.?(enhance|extend|expand|rewrit)|deepseek|groq",
        re.IGNORECASE,
    ),
    NO_SAMPLER: re.compile("^context|save|preset|config", re.IGNORECASE),
    SAMPLER: re.compile("sampler", re.IGNORECASE),
    PIPE: re.compile("^easy |^ttN |[pP]ipe|^Context"),
    SAVES: re.compile("^(?!.*(text|latent|audio)).*save", re.IGNORECASE),
    SHOWS: re.compile("^(?!.*(any|save)).*(preview|videocombine|image|video|webp|output)", re.IGNORECASE),
}


def role_of(name: str) -> int:
    """The bits of an input's name."""
    return _role_of(name) if len(name) <= MAX_NAME else 0


def traits_of(kind: str) -> int:
    """The bits of a node's class."""
    return _traits_of(kind) if len(kind) <= MAX_NAME else 0


@lru_cache(maxsize=4096)
def _role_of(name: str) -> int:
    return sum(role for role, pattern in _ROLES.items() if pattern.match(name))


@lru_cache(maxsize=4096)
def _traits_of(kind: str) -> int:
    return sum(trait for trait, pattern in _TRAITS.items() if pattern.search(kind))
