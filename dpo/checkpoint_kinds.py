"""What a checkpoint file holds, told by its header: the family, how much of a pipeline, and what it was trained to predict.

The names of tensors are those of each model's authors, as the programs that write such files keep them; most stand in diffusers'
`loaders/single_file_utils.py`, and tests/test_checkpoint_kinds.py holds these answers against the ones diffusers gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from dpo.architectures import ARCHITECTURES, supported
from dpo.checkpoint_header import Header, HeaderError

PREFIX = "model.diffusion_model."  # before the denoiser's names, where a file holds more or once did
WORDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
LORA_MARKS = (
    ".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora.down.", ".lora.up.", ".hada_w1_a", ".lokr_w1", ".lokr_w2", ".oft_",
)  # fmt: skip
SD2_WIDTH, REFINER_WIDTH = 1024, 1280  # of the text that a UNet attends to
UNET_CHANNELS = {4: "", 8: "edits images (InstructPix2Pix)", 9: "is an inpainting model", 7: "is an upscaler"}


@dataclass(frozen=True)
class Kind:
    """title: in words. pipeline: name of its class in diffusers. components: hub id of a pipeline that has the rest; "": that of
    the architecture."""

    title: str
    pipeline: str
    components: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """What a file is.

    is_whole: it holds text encoders and VAE too, and diffusers reads them from it. prediction_type: "epsilon" or "v_prediction",
    "" for families that have no choice. zero_snr: its noise schedule ends in pure noise. precision: in words, of most weights.
    weights: how many. doubt: what the header does not tell, in a sentence, or "".
    """

    kind: Kind
    is_whole: bool
    prediction_type: str
    zero_snr: bool
    precision: str
    weights: int
    doubt: str = ""

    @property
    def components(self) -> str:
        """The hub id of what the file lacks."""
        architecture = ARCHITECTURES.get(self.kind.pipeline)
        return self.kind.components or (architecture.components if architecture else "")


SD1 = Kind("Stable Diffusion 1.x", "StableDiffusionPipeline", "stable-diffusion-v1-5/stable-diffusion-v1-5")
SD2 = Kind("Stable Diffusion 2.x", "StableDiffusionPipeline", "stabilityai/stable-diffusion-2-1")
SDXL = Kind("Stable Diffusion XL", "StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0")
SD3 = Kind("Stable Diffusion 3", "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3-medium-diffusers")
SD35_MEDIUM = Kind("Stable Diffusion 3.5 medium", "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3.5-medium")
SD35_LARGE = Kind("Stable Diffusion 3.5 large", "StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3.5-large")
FLUX_DEV = Kind("FLUX.1 dev", "FluxPipeline", "black-forest-labs/FLUX.1-dev")
FLUX_SCHNELL = Kind("FLUX.1 schnell", "FluxPipeline", "black-forest-labs/FLUX.1-schnell")
FLUX2_DEV = Kind("FLUX.2 dev", "Flux2Pipeline", "black-forest-labs/FLUX.2-dev")
FLUX2_KLEIN_4B = Kind("FLUX.2 klein 4B", "Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-4B")
FLUX2_KLEIN_9B = Kind("FLUX.2 klein 9B", "Flux2KleinPipeline", "black-forest-labs/FLUX.2-klein-9B")
CHROMA = Kind("Chroma", "ChromaPipeline", "lodestones/Chroma1-HD")
Z_IMAGE = Kind("Z-Image", "ZImagePipeline", "Tongyi-MAI/Z-Image-Turbo")
QWEN_IMAGE = Kind("Qwen-Image", "QwenImagePipeline", "Qwen/Qwen-Image")
SANA = Kind("Sana", "SanaPipeline", "Efficient-Large-Model/Sana_1600M_1024px_diffusers")
LUMINA2 = Kind("Lumina 2", "Lumina2Pipeline", "Alpha-VLLM/Lumina-Image-2.0")

# What else is met with, by a name in it: said, and refused.
STRANGERS = {
    "control_model.time_embed.0.weight": "a ControlNet",
    "controlnet_cond_embedding.conv_in.weight": "a ControlNet",
    "control_all_x_embedder.2-1.weight": "a ControlNet of Z-Image",
    "edm_mean": "Playground 2.5, which counts noise another way",
    "edm_vpred.sigma_max": "CosXL, which counts noise another way",
    "clip_txt_mapper.weight": "Stable Cascade",
    "double_layers.0.attn.w1q.weight": "AuraFlow",
    "head.modulation": "Wan, which makes videos",
    "patchify_proj.weight": "LTX-Video, which makes videos",
    "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": "HunyuanVideo, which makes videos",
    "blocks.0.attn.qkv_x.weight": "Mochi, which makes videos",
    "double_stream_blocks.0.block.adaLN_modulation.1.bias": "HiDream",
    "early_stream_modulations.image.lin.weight": "FLUX.3",
    "txt_in.text_norm.weight": "Qwen-Image 2.1",
    "txtfusion.projector.weight": "Krea 2",
    "nerf_blocks.0.param_generator.weight": "Chroma Radiance, which has no VAE",
    "encoder.conv_in.weight": "a VAE alone",
    "text_model.embeddings.token_embedding.weight": "a text encoder alone",
}
DIFFUSERS_NAMES = (
    "down_blocks.0.resnets.0.conv1.weight", "transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn1.to_q.weight",
    "layers.0.attention.to_q.weight", "layers.0.attn.to_q.weight",
)  # fmt: skip


def identify(header: Header, name: str) -> Checkpoint:
    """What the file called `name` is. Raises HeaderError, in words with what to do, for what cannot be trained from."""
    tensors = header.tensors
    shapes = {key.removeprefix(PREFIX): info.shape for key, info in tensors.items()}
    if any(mark in key for mark in LORA_MARKS for key in tensors):
        raise HeaderError(
            f"{name} is a LoRA, an adapter and no model. Choose the model it was made for, and name the LoRA as Starting adapter "
            "to train it further, or as Base adapter to have it merged into the model first."
        )
    _refuse_packed(tensors, name)
    for mark, what in STRANGERS.items():
        if mark in shapes:
            raise HeaderError(f"{name} holds {what}. That cannot be trained here. Supported: {supported()}.")
    kind = next((kind for find in _FINDERS if (kind := find(shapes, name))), None)
    if kind is None:
        _refuse_unknown(tensors, shapes, name)
    parts = [key for key in tensors if key.removeprefix(PREFIX) != key] or list(tensors)
    has_rest = any(key.startswith(("first_stage_model.", "vae.")) for key in tensors) and any(
        key.startswith(("cond_stage_model.", "conditioner.embedders.")) for key in tensors
    )
    numbers = Counter()
    for key in parts:
        numbers[tensors[key].kind] += prod(tensors[key].shape)
    precision = numbers.most_common(1)[0][0]
    found = Checkpoint(kind, has_rest, "", False, WORDS.get(precision, precision), numbers.total())
    return _with_prediction(found, header) if kind in (SD1, SD2, SDXL) else found


def _refuse_packed(tensors: dict, name: str) -> None:
    if any(key.endswith((".scale_weight", ".weight_scale", ".comfy_quant")) or key == "scaled_fp8" for key in tensors):
        raise HeaderError(
            f"{name} is stored with scales beside its weights (ComfyUI's scaled fp8 and others), which diffusers does not apply. "
            "Get the same model as bfloat16, float16 or GGUF, and set quantization to make it small."
        )
    if any(".quant_state." in key or key.endswith((".absmax", ".qweight")) for key in tensors):
        raise HeaderError(
            f"{name} was quantised by another program, and cannot be read as it is. Get the same model as bfloat16 or float16, "
            "and set quantization to make it small."
        )


def _refuse_unknown(tensors: dict, shapes: dict, name: str) -> None:
    if any(mark in shapes for mark in DIFFUSERS_NAMES):
        raise HeaderError(
            f"{name} is one part of a diffusers folder. Choose the folder it belongs to: the one with model_index.json."
        )
    if "y_embedder.y_proj.fc1.weight" in shapes:
        raise HeaderError(
            f"{name} holds PixArt as its authors store it, which diffusers does not read. Choose a diffusers folder or a hub id, "
            "such as PixArt-alpha/PixArt-Sigma-XL-2-1024-MS."
        )
    first = ", ".join(list(tensors)[:3]) or "nothing"
    raise HeaderError(
        f"{name} holds no model known here: {len(tensors)} tensors, the first of them {first}. Supported: {supported()}."
    )


# ------------------------------------------------------------------------------------------------ families


def _unet(shapes: dict, name: str) -> Kind | None:
    if "input_blocks.0.0.weight" not in shapes:
        return None
    channels = shapes["input_blocks.0.0.weight"][1]
    width = next((shape[-1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight")), 0)
    takes_size = "label_emb.0.0.weight" in shapes
    why = UNET_CHANNELS.get(channels, f"takes {channels} channels")
    if not why and takes_size:
        why = {REFINER_WIDTH: "is the refiner of Stable Diffusion XL", SD2_WIDTH: "is an unCLIP model"}.get(width, "")
    if why:
        raise HeaderError(f"{name} {why}, which cannot be trained on pairs of prompts and images. Choose the base model.")
    return SDXL if takes_size else SD2 if width == SD2_WIDTH else SD1


def _sd3(shapes: dict, name: str) -> Kind | None:
    if "joint_blocks.0.context_block.adaLN_modulation.1.bias" not in shapes:
        return None
    if "joint_blocks.37.x_block.mlp.fc1.weight" in shapes:
        return SD35_LARGE
    return SD35_MEDIUM if any(".x_block.attn2." in key for key in shapes) else SD3


def _flux(shapes: dict, name: str) -> Kind | None:
    if "single_stream_modulation.lin.weight" in shapes:
        if any(key.startswith("guidance_in.") for key in shapes):
            return FLUX2_DEV
        return FLUX2_KLEIN_9B if shapes["single_stream_modulation.lin.weight"][-1] == 4096 else FLUX2_KLEIN_4B
    if "distilled_guidance_layer.in_proj.bias" in shapes:
        return CHROMA
    if "double_blocks.0.img_attn.norm.key_norm.scale" not in shapes:
        return None
    if shapes.get("img_in.weight", (0, 64))[-1] != 64:
        raise HeaderError(f"{name} is a FLUX.1 that also takes a picture (fill, depth, canny). Choose FLUX.1 dev or schnell.")
    return FLUX_DEV if any(key.startswith("guidance_in.") for key in shapes) else FLUX_SCHNELL


def _others(shapes: dict, name: str) -> Kind | None:
    if "layers.0.adaLN_modulation.0.weight" in shapes:
        return Z_IMAGE
    if "cap_embedder.0.weight" in shapes:
        return LUMINA2
    if "blocks.0.cross_attn.q_linear.weight" in shapes and "attention_y_norm.weight" in shapes:
        return SANA
    if "txt_norm.weight" in shapes and "transformer_blocks.0.attn.add_q_proj.weight" in shapes:
        return QWEN_IMAGE
    return None


_FINDERS: tuple[Callable[[dict, str], Kind | None], ...] = (_unet, _sd3, _flux, _others)


# ------------------------------------------------------------------------------------------------ prediction


def _with_prediction(found: Checkpoint, header: Header) -> Checkpoint:
    """What its UNet predicts: by the tensors that NoobAI and others leave for that (`v_pred`, `ztsnr`), else by what the metadata
    say, else as is usual for its family."""
    texts = {key.lower(): value.lower() for key, value in header.metadata.items()}
    zero_snr = "ztsnr" in header.tensors or texts.get("ss_zero_terminal_snr") == "true"
    told = texts.get("modelspec.prediction_type", "")
    architecture = texts.get("modelspec.architecture", "")
    if "v_pred" in header.tensors or told.startswith("v") or texts.get("ss_v_parameterization") == "true":
        return replace(found, prediction_type="v_prediction", zero_snr=zero_snr)
    if told.startswith("eps"):
        return replace(found, prediction_type="epsilon", zero_snr=zero_snr)
    if found.kind is not SD2:
        return replace(found, prediction_type="epsilon", zero_snr=zero_snr)
    if "512" in architecture:
        return replace(found, prediction_type="epsilon")
    doubt = "" if "768" in architecture else (
        "The file does not say what it predicts: models of 768 pixels predict v, and those of 512 (2-base) epsilon. If yours is "
        "such a one, set prediction_type to epsilon."
    )  # fmt: skip
    return replace(found, prediction_type="v_prediction", doubt=doubt)
