"""The widgets of a canvas node have an order but no names; this gives them the names that a run has.

Newer canvases list their widgets among the inputs. For others the order is known for the nodes that matter here; of the rest,
texts, seeds, samplers are known by their looks.
"""

from __future__ import annotations

import re

from dpo.metadata.comfynames import SHOW, traits_of

AFTER_SEED = {"fixed", "increment", "decrement", "randomize"}  # a widget of its own beside every seed, that a run does not have
SEEDS = {"seed", "noise_seed", "value", "wildcard_seed", "sampling_mode.seed", "seed_num"}
_SAMPLER = "seed steps cfg sampler_name scheduler"
_EMPTY = "empty_latent_width empty_latent_height"
_WAN = "width height length batch_size"

# "_" = not of interest here. Widgets after the last one that is are left out.
WIDGETS = {
    # samplers and what they are made of
    "KSampler": _SAMPLER,
    "KSamplerAdvanced": "_ noise_seed steps cfg sampler_name scheduler",
    "SamplerCustom": "_ noise_seed cfg",
    "KSamplerSelect": "sampler_name",
    "BasicScheduler": "scheduler steps",
    "KarrasScheduler": "steps",
    "ExponentialScheduler": "steps",
    "PolyexponentialScheduler": "steps",
    "SDTurboScheduler": "steps",
    "AlignYourStepsScheduler": "model_type steps",
    "BetaSamplingScheduler": "steps",
    "LTXVScheduler": "steps",
    "Flux2Scheduler": "steps width height",
    "RandomNoise": "noise_seed",
    "CFGGuider": "cfg",
    "DualCFGGuider": "cfg",
    "PerpNegGuider": "cfg",
    "FluxGuidance": "guidance",
    "UltimateSDUpscale": "upscale_by seed steps cfg sampler_name scheduler",
    "FaceDetailer": "_ _ _ seed steps cfg sampler_name scheduler",
    "DetailerForEach": "_ _ _ seed steps cfg sampler_name scheduler",
    "KSampler //Inspire": _SAMPLER,
    "KSamplerAdvanced //Inspire": "_ noise_seed steps cfg sampler_name scheduler",
    "ImpactKSamplerBasicPipe": _SAMPLER,
    "ImpactKSamplerAdvancedBasicPipe": "_ noise_seed steps cfg sampler_name scheduler",
    "KSamplerProvider": _SAMPLER,
    "KSamplerAdvancedProvider": "cfg sampler_name scheduler",
    "KSampler (Efficient)": _SAMPLER,
    "KSampler SDXL (Eff.)": "noise_seed steps cfg sampler_name scheduler",
    "KSampler Adv. (Efficient)": "_ noise_seed steps cfg sampler_name scheduler",
    "BNK_TiledKSampler": "seed _ _ _ steps cfg sampler_name scheduler",
    "XlabsSampler": "noise_seed steps timestep_to_start_cfg true_gs",
    "WanVideoSampler": "steps cfg shift seed",
    "ClownsharKSampler_Beta": "eta sampler_name scheduler steps steps_to_run denoise cfg seed",
    # models and loras
    "CheckpointLoaderSimple": "ckpt_name",
    "CheckpointLoader": "config_name ckpt_name",
    "ImageOnlyCheckpointLoader": "ckpt_name",
    "unCLIPCheckpointLoader": "ckpt_name",
    "Checkpoint Loader (Simple)": "ckpt_name",
    "UNETLoader": "unet_name",
    "UnetLoaderGGUF": "unet_name",
    "LoraLoader": "lora_name strength_model strength_clip",
    "LoraLoaderModelOnly": "lora_name strength_model",
    "LoraLoader|pysssss": "lora_name strength_model strength_clip",
    # latents
    "EmptyLatentImage": "width height",
    "EmptySD3LatentImage": "width height",
    "EmptyFlux2LatentImage": "width height",
    "EmptyHunyuanLatentVideo": "width height",
    "EmptyHunyuanImageLatent": "width height",
    "EmptyMochiLatentVideo": "width height",
    "EmptyLTXVLatentVideo": "width height",
    "EmptyCosmosLatentVideo": "width height",
    "EmptyChromaRadianceLatentImage": "width height",
    "StableCascade_EmptyLatentImage": "width height",
    "WanImageToVideo": _WAN,
    "WanVaceToVideo": _WAN,
    "WanFunControlToVideo": _WAN,
    "WanFirstLastFrameToVideo": _WAN,
    "Wan22ImageToVideoLatent": _WAN,
    "HunyuanImageToVideo": _WAN,
    "HunyuanVideo15ImageToVideo": _WAN,
    "LTXVImgToVideo": _WAN,
    "SVD_img2vid_Conditioning": "width height",
    "CosmosImageToVideoLatent": _WAN,
    # encoders
    "CLIPTextEncode": "text",
    "CLIPTextEncodeSDXL": "width height _ _ _ _ text_g text_l",
    "CLIPTextEncodeSDXLRefiner": "_ width height text",
    "CLIPTextEncodeFlux": "clip_l t5xxl guidance",
    "CLIPTextEncodeSD3": "clip_l clip_g t5xxl",
    "CLIPTextEncodeHunyuanDiT": "bert mt5xl",
    "CLIPTextEncodeHiDream": "clip_l clip_g t5xxl llama",
    "CLIPTextEncodePixArtAlpha": "width height text",
    "CLIPTextEncodeLumina2": "system_prompt user_prompt",
    "CLIPTextEncodeKandinsky5": "clip_l qwen25_7b",
    "CLIPTextEncodeControlnet": "text",
    "TextEncodeQwenImageEdit": "prompt",
    "TextEncodeQwenImageEditPlus": "prompt",
    "TextEncodeHunyuanVideo_ImageToVideo": "prompt",
    "TextEncodeZImageOmni": "prompt",
    "TextEncodeAceStepAudio": "tags lyrics",
    "TextEncodeAceStepAudio1.5": "tags lyrics",
    "WanVideoTextEncode": "positive_prompt negative_prompt",
    "BNK_CLIPTextEncodeAdvanced": "text",
    "smZ CLIPTextEncode": "text",
    "ImpactWildcardEncode": "wildcard_text populated_text",
    "ImpactWildcardProcessor": "wildcard_text populated_text",
    "BatchPromptSchedule": "text",
    "GLIGENTextBoxApply": "text",
    "PhotoMakerEncode": "text",
    "Power Prompt (rgthree)": "prompt",
    "Power Prompt - Simple (rgthree)": "prompt",
    "SDXL Power Prompt - Positive (rgthree)": "prompt_g prompt_l",
    "SDXL Power Prompt - Simple / Negative (rgthree)": "prompt_g prompt_l",
    # loaders with prompts in them
    "Efficient Loader": f"ckpt_name _ _ lora_name lora_model_strength _ positive negative _ _ {_EMPTY}",
    "Eff. Loader SDXL": f"base_ckpt_name _ _ _ _ _ _ positive negative _ _ {_EMPTY}",
    "easy fullLoader": f"ckpt_name _ _ _ lora_name lora_model_strength _ _ {_EMPTY} positive _ _ negative",
    "easy a1111Loader": f"ckpt_name _ _ lora_name lora_model_strength _ _ {_EMPTY} positive negative",
    "easy comfyLoader": f"ckpt_name _ _ lora_name lora_model_strength _ _ {_EMPTY} positive negative",
    "easy fluxLoader": f"ckpt_name _ lora_name lora_model_strength _ _ {_EMPTY} positive",
    "ttN pipeLoader": f"ckpt_name _ _ _ _ _ _ _ _ _ _ _ _ positive _ _ negative _ _ {_EMPTY} seed",
    "easy preSampling": "steps cfg sampler_name scheduler denoise seed",
    "easy positive": "positive",
    "easy negative": "negative",
    # texts
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
    "PrimitiveInt": "value",
    "PrimitiveFloat": "value",
    "PrimitiveBoolean": "value",
    "ComfySwitchNode": "switch",
    "ImpactSwitch": "select",
    "StringConcatenate": "string_a string_b delimiter",
    "StringReplace": "string find replace",
    "RegexReplace": "string regex_pattern replace case_insensitive multiline dotall count",
    "RegexExtract": "string regex_pattern",
    "StringFormat": "f_string",
    "StringTrim": "string mode",
    "StringSubstring": "string start end",
    "CaseConverter": "string mode",
    "Text Concatenate": "delimiter clean_whitespace",
    "Text Multiline": "text",
    "JWStringConcat": "a b",
    "JoinStrings": "string1 string2 delimiter",
    "JoinStringMulti": "inputcount delimiter return_list",
    "StringConstant": "string",
    "StringConstantMultiline": "string",
    "String Literal": "string",
    "CR Text Concatenate": "text1 text2 separator",
    "CR Text Replace": "text find1 replace1 find2 replace2 find3 replace3",
    "StringFunction|pysssss": "action tidy_tags text_a text_b text_c result",
    "SDXLPromptStyler": "text_positive text_negative style",
    "TextGenerate": "prompt",
    "TextGenerateLTX2Prompt": "prompt",
    "GeminiNode": "prompt model seed",
}
SAMPLERS = re.compile(
    r"(euler|heun|dpm|lms|ddim|ddpm|uni_pc|lcm|ipndm|deis|res_|er_sde|seeds_|gradient_est|sa_solver|exp_heun)\w*"
)
TEXTUAL = re.compile(
    r"^(?!.*(vision|vae|audioenc|image ?encode)).*(encode|text|prompt|string|primitive|wildcard|positive|negative|styler)",
    re.IGNORECASE,
)
UTILITY = re.compile(
    r"math|resize|scale|load|save|switch|painter|slice|shader|select|combo|color|mask|crop|render|enhanc|upscal|topaz|restor",
    re.IGNORECASE,
)
FILE = tuple(f".{end}" for end in "safetensors ckpt pt pth gguf png jpg jpeg webp mp4 txt csv yaml yml".split())
HEAD = 2_000  # characters of a text that tell what it looks like; no pattern here, as those take long on long texts


def name_widgets(node: dict) -> dict:
    """The widget values of a canvas node by name. Values whose names are not known are left out."""
    values, kind = node.get("widgets_values"), node["type"]
    if isinstance(values, dict):
        return dict(values)
    if not isinstance(values, list) or not values:
        return {}
    if traits_of(kind) & SHOW:
        texts = [text for value in values for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        return {"text_0": "\n".join(texts)} if any(texts) else {}
    if kind.startswith("Power Lora Loader"):
        return {f"lora_{i}": value for i, value in enumerate(values) if isinstance(value, dict) and "lora" in value}
    slots = node.get("inputs")
    slots = [slot for slot in slots if isinstance(slot, dict)] if isinstance(slots, list) else []
    listed = [str(slot["widget"].get("name")) for slot in slots if isinstance(slot.get("widget"), dict)]
    named, used = _in_order(listed, values)
    if listed and used >= len(values) - 1:
        return named
    if kind in WIDGETS:
        return _in_order(WIDGETS[kind].split(), values)[0]
    is_told = any(re.search(r"prompt|text", name) for name in listed)
    return _by_looks(kind, values, is_told)


def _in_order(names: list[str], values: list) -> tuple[dict, int]:
    """The values by name, and how many that took: what stands beside a seed is no value."""
    named, i = {}, 0
    for name in names:
        if i >= len(values):
            break
        if name != "_":
            named[name] = values[i]
        i += 1
        beside = values[i] if i < len(values) else None
        if name in SEEDS and (
            (isinstance(beside, str) and beside in AFTER_SEED) or (name == "seed" and isinstance(beside, bool))
        ):
            i += 1  # the oldest canvases have a bool there
    return named, i


def _by_looks(kind: str, values: list, is_told: bool) -> dict:
    """`is_told`: the prompt comes by wire."""
    named, texts = {}, []
    for i, value in enumerate(values):
        if not isinstance(value, str):
            continue
        before = values[i - 1] if i else None
        if value in AFTER_SEED and _is_number(before):
            named.setdefault("seed", before)
        elif SAMPLERS.fullmatch(value):
            named.setdefault("sampler_name", value)
            if i >= 2 and _is_number(before) and _is_number(values[i - 2]):
                named.update(steps=values[i - 2], cfg=before)
        elif is_file(value):
            if re.search(r"checkpoint|ckpt|unet|loader", kind, re.IGNORECASE) and "lora" not in kind.lower():
                named.setdefault("ckpt_name", value)
        else:
            texts.append((i, value))
    sentences = [value for _, value in texts if is_sentence(value)]
    if TEXTUAL.search(kind):
        return named | {f"text_{i}": value for i, value in texts if value in sentences or not sentences}
    told = [value for value in sentences if is_sentence(value, 6)]
    if not told and not is_told and not UTILITY.search(kind):
        told = sentences
    return named | dict(zip(("prompt", "negative_prompt"), told[:1] + told[1:][-1:], strict=False))


def is_sentence(text: str, words: int = 2) -> bool:
    """It has so many words with letters in them, or as much in a script that needs no spaces."""
    head = text[:HEAD]
    if sum(any(map(str.isalpha, word)) for word in head.split()) >= words:
        return True
    return sum(not char.isascii() for char in head) >= 2 * words


def is_file(text: str) -> bool:
    return text[-20:].strip().lower().endswith(FILE)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
