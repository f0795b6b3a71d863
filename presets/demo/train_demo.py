"""Train the demo model from scratch: `python presets/demo/train_demo.py --work DIR`.

A real StableDiffusionPipeline at toy size, for pictures that `dpo.demo.world` paints. Four parts, each resumable from
`DIR`, so that training can be stopped at any time and continued on another day with a larger `--steps`:

    data      scenes, captions and their latents
    decoder   the VAE's decoder (its encoder is solved, not trained: see `build_vae`)
    denoiser  UNet and text encoder together, v-prediction with zero terminal SNR
    export    weights averaged over training, in fp16 safetensors, to presets/demo/model

On two cores a denoiser step of 64 images takes 0.25 s. `--parts denoiser --steps 40000` continues where it stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from dpo.demo import world  # noqa: E402

LATENT_CHANNELS = 8
PATCH = 4  # a latent pixel is a patch of 4x4 pixels
TOKENS = 24
CAPTIONS_PER_SCENE = 6
EMA = 0.999
PREVIEW_PROMPTS = [
    "a red house in a meadow", "a blue cat on a peach background", "a yellow balloon at night", "a pink mushroom in the snow",
    "a green tree in the desert", "an orange boat by the sea", "a purple cat at sunset",
    "a large red mushroom on a mint background",
    "a small blue house by the sea", "a purple balloon on the right on a white background", "a yellow tree on a black background",
    "a green boat on a gray background", "an orange cat on the left in a meadow", "a small pink tree at night", "a balloon",
    "a blue house",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data and checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "model")
    parser.add_argument("--parts", default="data,decoder,denoiser,export")
    parser.add_argument("--scenes", type=int, default=60_000)
    parser.add_argument("--decoder-steps", type=int, default=6_000)
    parser.add_argument("--steps", type=int, default=30_000, help="denoiser steps in all; the rate falls over the last third")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    lock = (args.work / "lock").open("w")
    try:  # two writers of one checkpoint would spoil both; exporting while another trains is fine
        if args.parts != "export":
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error(f"{args.work} is in use by another training. Wait for it, or choose another --work.")
    for part in args.parts.split(","):
        {"data": make_data, "decoder": train_decoder, "denoiser": train_denoiser, "export": export}[part](args)


def make_data(args) -> None:
    """Paint the scenes, fit the encoder to them, and store images, latents and token ids."""
    if (args.work / "data.pt").exists():
        return
    rng = random.Random(0)
    scenes = [world.random_scene(rng) for _ in range(args.scenes)]
    images = torch.stack([torch.from_numpy(world.draw(scene).copy()) for scene in scenes]).permute(0, 3, 1, 2).contiguous()
    vae = build_vae(images[:4000])
    latents = torch.cat([_encode(vae, part) for part in images.split(500)]).half()
    tokenizer = build_tokenizer()
    captions = [world.caption(scene, rng) for scene in scenes for _ in range(CAPTIONS_PER_SCENE)]
    ids = _tokenize(tokenizer, captions).view(len(scenes), CAPTIONS_PER_SCENE, TOKENS).to(torch.int16)
    vae.save_pretrained(args.work / "vae")
    tokenizer.save_pretrained(args.work / "tokenizer")
    torch.save({"images": images, "latents": latents, "ids": ids}, args.work / "data.pt")
    print(f"data: {len(scenes)} scenes, latent std {latents.float().std():.3f}, e.g. {captions[::CAPTIONS_PER_SCENE][:4]}")


def build_vae(images: torch.Tensor) -> AutoencoderTiny:
    """An AutoencoderTiny whose encoder is exact linear algebra: space to depth, then a principal component projection.

    With no residual blocks its encoder is four convolutions without a non-linearity between them. The first copies, the
    next two move each 2x2 block of pixels into channels, the last projects the 48 values of a 4x4 patch on the first
    components of the pictures, whitened in part so that every channel carries signal.
    """
    vae = AutoencoderTiny(
        encoder_block_out_channels=(48, 48, 48), decoder_block_out_channels=(32, 32, 32), latent_channels=LATENT_CHANNELS,
        num_encoder_blocks=(0, 0, 0), num_decoder_blocks=(2, 1, 0), upsampling_scaling_factor=2, scaling_factor=1.0,
    )  # fmt: skip
    patches = _patches(images)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    values, vectors = values.flip(0)[:LATENT_CHANNELS], vectors.flip(1)[:, :LATENT_CHANNELS]
    projection = (vectors * values.sqrt() ** -0.6).T
    projection /= ((patches - mean) @ projection.T).std()

    convolutions = [module for module in vae.encoder.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        for convolution in convolutions:
            for parameter in convolution.parameters():
                parameter.zero_()
        copy, halve, quarter, project = convolutions
        for channel in range(3):
            copy.weight[channel, channel, 1, 1] = 1
        for stage, channels in ((halve, 3), (quarter, 12)):
            for channel in range(channels):
                for dy in range(2):
                    for dx in range(2):
                        stage.weight[channel * 4 + dy * 2 + dx, channel, 1 + dy, 1 + dx] = 1
        for source in range(48):
            channel, dy1, dx1, dy2, dx2 = source // 16, source // 8 % 2, source // 4 % 2, source // 2 % 2, source % 2
            project.weight[:, source, 1, 1] = projection[:, channel * 16 + (2 * dy2 + dy1) * 4 + (2 * dx2 + dx1)]
        project.bias.copy_(-(projection @ mean))
    expected = ((patches[:256] - mean) @ projection.T).view(1, 16, 16, LATENT_CHANNELS).permute(0, 3, 1, 2)
    assert (_encode(vae, images[:1]) - expected).abs().max() < 1e-4
    return vae


def build_tokenizer() -> CLIPTokenizer:
    """Every word of the world is one token; any other text falls back to bytes."""
    words = {word for phrase in (*world.SCENES.values(), *world.PLAINS, *world.COLORS, *world.OBJECTS) for word in phrase.split()}
    words |= set("a an the of and with over small large big little left right top bottom center background".split())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=5000, end_of_word_suffix="</w>", show_progress=False, initial_alphabet=alphabet)
    bpe.train_from_iterator([word for word in sorted(words) for _ in range(3)], trainer)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *(a + b for a, b in merges), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=TOKENS, projection_dim=96, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def build_denoiser() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS, layers_per_block=1,
        block_out_channels=(64, 96, 128), cross_attention_dim=96, attention_head_dim=4, norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        # The prompt also scales and shifts every block, not only through cross-attention: small models follow better.
        addition_embed_type="text", addition_embed_type_num_heads=4, resnet_time_scale_shift="scale_shift",
    )  # fmt: skip


def build_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR, sampled from the last timestep: flat colours come out exact."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", steps_offset=1,
    )  # fmt: skip


def train_decoder(args) -> None:
    data = torch.load(args.work / "data.pt", weights_only=True, mmap=True)
    images, latents = data["images"], data["latents"]
    vae = AutoencoderTiny.from_pretrained(args.work / "vae").to(args.device)
    decoder = list(vae.decoder.parameters())
    averaged = [p.detach().clone() for p in decoder]
    optimizer = torch.optim.AdamW(decoder, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=1e-5)
    step = _load_state(args.work / "decoder.pt", decoder, averaged, optimizer)
    held_out, losses, start = 64, [], time.time()
    while step < args.decoder_steps:
        generator = torch.Generator().manual_seed(step)
        _set_learning_rate(optimizer, args.learning_rate, step, args.decoder_steps)
        picked = torch.randint(0, len(images) - held_out, (24,), generator=generator)
        pixels = images[picked].to(args.device).float() / 127.5 - 1
        # Sampled latents are never exact: the decoder learns to forgive a little noise.
        forgive = 0.06 * torch.randn(latents[picked].shape, generator=generator) * torch.rand(24, 1, 1, 1, generator=generator)
        with torch.autocast(args.device, torch.bfloat16):
            decoded = vae.decode((latents[picked].float() + forgive).to(args.device)).sample.float()
        error = decoded - pixels
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        loss = error.abs().mean() + 2 * error.pow(2).mean() + 0.5 * edges
        _optimize(loss, decoder, averaged, optimizer, step, 0.99)
        losses.append(loss.detach())
        step += 1
        if step % 500 == 0 or step == args.decoder_steps:
            _save_state(args.work / "decoder.pt", decoder, averaged, optimizer, step)
            print(f"decoder {step}: loss {torch.stack(losses).mean():.4f}, {time.time() - start:.0f} s", flush=True)
            losses.clear()
    _copy(averaged, decoder)
    with torch.no_grad():
        pixels = images[-held_out:].to(args.device).float() / 127.5 - 1
        decoded = vae.decode(latents[-held_out:].float().to(args.device)).sample.clamp(-1, 1)
    print(f"decoder: held-out PSNR {10 * math.log10(4 / (decoded - pixels).pow(2).mean().item()):.1f} dB")


def train_denoiser(args) -> None:
    data = torch.load(args.work / "data.pt", weights_only=True, mmap=True)
    latents, ids = data["latents"], data["ids"]
    tokenizer = CLIPTokenizer.from_pretrained(args.work / "tokenizer")
    torch.manual_seed(0)
    text_encoder, denoiser, scheduler = build_text_encoder(tokenizer), build_denoiser(), build_scheduler()
    # The fused CPU attention spends half of a training step in its backward; the plain one does not.
    denoiser.set_attn_processor(AttnProcessor())
    text_encoder.to(args.device).train()
    denoiser.to(args.device).train()
    parameters = [*denoiser.parameters(), *text_encoder.parameters()]
    averaged = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    step = _load_state(args.work / "denoiser.pt", parameters, averaged, optimizer)
    empty = _tokenize(tokenizer, [""])
    losses, start = [], time.time()
    while step < args.steps:
        generator = torch.Generator().manual_seed(1_000_000 + step)
        _set_learning_rate(optimizer, args.learning_rate, step, args.steps)
        picked = torch.randint(0, len(latents), (args.batch,), generator=generator)
        clean = latents[picked].float().to(args.device)
        worded = torch.randint(0, CAPTIONS_PER_SCENE, (args.batch,), generator=generator)
        tokens = ids[picked, worded].long()
        tokens[torch.rand(args.batch, generator=generator) < 0.1] = empty
        strata = (torch.arange(args.batch) + torch.rand(1, generator=generator)) / args.batch % 1
        timesteps = (strata**0.75 * 1000).long().clamp(0, 999).to(args.device)
        noise = torch.randn(clean.shape, generator=generator).to(args.device)
        noisy, target = scheduler.add_noise(clean, noise, timesteps), scheduler.get_velocity(clean, noise, timesteps)
        with torch.autocast(args.device, torch.bfloat16):
            prediction = denoiser(noisy, timesteps, text_encoder(tokens.to(args.device))[0]).sample
        loss = (prediction.float() - target).pow(2).mean()
        _optimize(loss, parameters, averaged, optimizer, step, EMA)
        losses.append(loss.detach())
        step += 1
        if step % 250 == 0 or step == args.steps:
            _save_state(args.work / "denoiser.pt", parameters, averaged, optimizer, step)
            rate = (time.time() - start) / len(losses) if len(losses) else 0
            print(f"denoiser {step}: loss {torch.stack(losses).mean():.4f}, {rate:.3f} s/step", flush=True)
            losses.clear()
            start = time.time()


def export(args) -> None:
    """Write the averaged weights as an ordinary diffusers folder, and a preview beside the work files."""
    tokenizer = CLIPTokenizer.from_pretrained(args.work / "tokenizer")
    text_encoder, denoiser = build_text_encoder(tokenizer), build_denoiser()
    state = torch.load(args.work / "denoiser.pt", weights_only=True)
    _copy(state["averaged"], [*denoiser.parameters(), *text_encoder.parameters()])
    vae = AutoencoderTiny.from_pretrained(args.work / "vae")
    _copy(torch.load(args.work / "decoder.pt", weights_only=True)["averaged"], vae.decoder.parameters())
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=denoiser, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    vae.register_to_config(_name_or_path="")  # where it was trained is nobody's business
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(args.out)
    pipeline.to(dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for module in (vae, text_encoder, denoiser):
        module.eval()
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PREVIEW_PROMPTS) * 2)]
    pictures = pipeline(PREVIEW_PROMPTS * 2, num_inference_steps=20, guidance_scale=3.0, generator=generators).images
    sheet = Image.new("RGB", (8 * 130, 4 * 130), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture.resize((128, 128), Image.Resampling.NEAREST), (index % 8 * 130, index // 8 * 130))
    sheet.save(args.work / f"preview_{state['step']}.png")
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"export: step {state['step']}, {size / 1e6:.1f} MB in {args.out}")


def _patches(images: torch.Tensor) -> torch.Tensor:
    return F.pixel_unshuffle(images.float() / 255, PATCH).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH * PATCH)


@torch.no_grad()
def _encode(vae: AutoencoderTiny, images: torch.Tensor) -> torch.Tensor:
    return vae.encode(images.float() / 127.5 - 1).latents


def _tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
    return tokenizer(prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def _set_learning_rate(optimizer, peak: float, step: int, steps: int) -> None:
    warm, fall = min(1.0, (step + 1) / 200), min(1.0, (steps - step) / (steps / 3))
    for group in optimizer.param_groups:
        group["lr"] = peak * warm * max(fall, 0.01)


def _optimize(loss, parameters, averaged, optimizer, step: int, decay: float) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    torch._foreach_lerp_(averaged, [p.data for p in parameters], 1 - min(decay, (1 + step) / (10 + step)))


def _copy(source, target) -> None:
    with torch.no_grad():
        for value, parameter in zip(source, target, strict=True):
            parameter.copy_(value)


def _save_state(path: Path, parameters, averaged, optimizer, step: int) -> None:
    partial = path.with_suffix(".partial")
    state = {"parameters": [p.data for p in parameters], "averaged": averaged, "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, partial)
    partial.replace(path)


def _load_state(path: Path, parameters, averaged, optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    _copy(state["parameters"], parameters)
    _copy(state["averaged"], averaged)
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


if __name__ == "__main__":
    main()
