from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from dpo.cache import encode_items
from dpo.config import TrainConfig
from dpo.events import Note, SamplesSaved, StepEnd
from dpo.metadata import read_image
from dpo.parallel import join_processes
from dpo.runs import create_run
from dpo.sampling import Sampler, SampleSettings
from dpo.strip import Strip, encode_samples
from dpo.trainer import train
from tests.test_adapters import build_learned
from tests.tiny import make_pairs

CONFIG = TrainConfig(model="tiny", resolution=16, lora_rank=2)
PROMPTS = ["a cat", "a dog"]


@pytest.fixture
def start(tmp_path):
    """start() -> (strip, family, adapter), with an adapter that has learned something and the encoders parked."""

    def start(name="cats-2"):
        family, adapter = build_learned(rank=2, alpha=6.0)
        strip = Strip(CONFIG, family, adapter, PROMPTS, encode_samples(family, PROMPTS), tmp_path / name / "samples")
        family.park_encoders()
        return strip, family, adapter

    return start


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def state(family) -> list:
    """All that training depends on: weights, gradients, what is trainable and active, random state."""

    def plain(tensor):
        return None if tensor is None else tensor.detach().numpy().tobytes()

    return [
        {name: (plain(each), each.requires_grad, plain(each.grad)) for name, each in family.denoiser.named_parameters()},
        [(layer._active_adapter, layer._disable_adapters) for layer in family.denoiser.modules() if hasattr(layer, "lora_A")],
        {name: str(value) for name, value in vars(family.pipeline.scheduler).items()},
        (plain(torch.get_rng_state()), family.denoiser.training, torch.is_grad_enabled()),
    ]


def add_gradients(family) -> None:
    """Of half a step: what a preview must not touch."""
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    family.predict(noisy, torch.tensor([3, 700]), {"prompt_embeds": torch.ones(2, 16, 16)}).square().mean().backward()


def test_base_is_painted_once_and_the_policy_every_time_it_is_asked(start, tmp_path):
    strip, _, _ = start()
    folder = tmp_path / "cats-2" / "samples"
    saved, bases = [], []
    for step in (40, 80):
        saved.append(list(strip.sample(step))[-1])
        bases.append((folder / "base").stat().st_ino)
    assert bases[0] == bases[1]
    assert saved == [SamplesSaved(step, str(folder / f"step-0000{step}")) for step in (40, 80)]
    assert sorted(path.name for path in folder.iterdir()) == ["base", "step-000040", "step-000080"]
    names = ["000-1.png", "001-2.png"]
    assert all(sorted(path.name for path in part.iterdir()) == names for part in folder.iterdir())


def test_a_file_says_its_prompt_seed_and_size_to_any_reader_and_the_policys_its_adapter(start, tmp_path):
    strip, _, _ = start()
    list(strip.sample(40))
    for part, adapter in (("base", False), ("step-000040", True)):
        path = tmp_path / "cats-2" / "samples" / part / "001-2.png"
        record = read_image(path)
        assert (record.prompt, record.seed, record.width, record.height) == ("a dog", 2, 16, 16)
        assert ("Adapter: cats-2 step 40, Adapter strength: 1" in Image.open(path).text["parameters"]) == adapter


def test_the_pictures_are_those_that_sampling_makes_with_the_adapter_and_without(start, tmp_path):
    strip, _, adapter = start()
    list(strip.sample(40))
    folder = tmp_path / "cats-2" / "samples"
    assert np.abs(pixels(folder / "base" / "000-1.png") - pixels(folder / "step-000040" / "000-1.png")).max() > 10
    adapter.save(tmp_path / "learned.safetensors")
    for part, strength in (("base", None), ("step-000040", 1.0)):
        fresh, _ = build_learned(rank=2, alpha=6.0)
        fresh.pipeline.unload_lora_weights()
        sampler = Sampler(fresh.pipeline, "tiny", tmp_path / "learned.safetensors")
        images = sampler.sample([("a cat", 1)], SampleSettings(width=16, height=16), strength=strength)
        assert np.abs(np.asarray(images[0]).astype(int) - pixels(folder / part / "000-1.png")).max() <= 1


def test_painting_changes_nothing_of_what_training_depends_on(start):
    strip, family, _ = start()
    add_gradients(family)
    before = state(family)
    assert any(gradient for _, _, gradient in before[0].values())
    list(strip.sample(1))
    assert state(family) == before


def test_a_run_that_paints_every_step_is_bitwise_the_run_that_never_does(tmp_path):
    pairs = make_pairs(tmp_path / "images")
    config = TrainConfig(
        resolution=16, lora_rank=2, learning_rate=5e-3, max_steps=3, warmup_steps=0, accumulation=2, sample_every=1
    )
    learned = []
    for name in ("painted", "plain"):
        family, adapter = build_learned(rank=2, alpha=6.0)
        run = create_run(tmp_path / "runs", name, config, pairs)
        data, nothing = ([*encode_items(items, family, 16, tmp_path / "cache")][-1] for items in (pairs, []))
        encoded = encode_samples(family, PROMPTS)
        strip = Strip(config, family, adapter, PROMPTS, encoded, run.samples) if name == "painted" else None
        family.park_encoders()
        events = list(train(config, data, nothing, family, adapter, run, processes=join_processes(), strip=strip))
        assert len([event for event in events if isinstance(event, SamplesSaved)]) == (4 if strip else 0)
        steps = [event.metrics | {"memory_bytes": 0} for event in events if isinstance(event, StepEnd)]
        learned.append((steps, [parameter.detach().numpy().tobytes() for parameter in adapter.parameters()]))
    assert learned[0] == learned[1]


def test_encoders_are_on_the_device_only_to_encode_and_to_decode(tmp_path, monkeypatch):
    family, adapter = build_learned(rank=2, alpha=6.0)
    seen, are_here = [], []

    @contextmanager
    def encoders(*, only_vae=False):
        are_here.append("VAE" if only_vae else "all")
        yield
        are_here.pop()

    monkeypatch.setattr(family, "encoders", encoders)
    pipeline = family.pipeline
    for name, module in (("text", pipeline.text_encoder), ("unet", pipeline.unet), ("vae", pipeline.vae.decoder)):
        module.register_forward_hook(lambda *_, name=name: seen.append((name, *are_here)))
    strip = Strip(CONFIG, family, adapter, PROMPTS, encode_samples(family, PROMPTS), tmp_path / "samples")
    assert set(seen) == {("text", "all")}
    seen.clear()
    list(strip.sample(1))
    assert set(seen) == {("unet", "VAE"), ("vae", "VAE")}
    parts = [part for part in strip._painter.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert parts == [pipeline.vae, pipeline.unet]  # where text encoders are parked does not decide where it paints


def test_a_prompt_looks_the_same_whichever_others_are_sampled(start, tmp_path):
    strip, family, adapter = start()
    with family.encoders():
        encoded = encode_samples(family, PROMPTS[:1])
    alone = Strip(CONFIG, family, adapter, PROMPTS[:1], encoded, tmp_path / "alone" / "samples")
    list(strip.sample(1)), list(alone.sample(1))
    paths = [tmp_path / name / "samples" / "step-000001" / "000-1.png" for name in ("cats-2", "alone")]
    assert np.array_equal(pixels(paths[0]), pixels(paths[1]))


def test_a_failure_is_a_warning_and_leaves_the_policy_in_place(start, tmp_path, monkeypatch):
    strip, family, _ = start()
    before = state(family)

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(family.denoiser, "forward", fail)
    last = list(strip.sample(40))[-1]
    assert last == Note(
        40, "The sample pictures of step 40 cannot be made: CUDA out of memory. Training goes on.", tone="warning"
    )
    monkeypatch.undo()
    assert state(family) == before
    (tmp_path / "cats-2").mkdir()
    (tmp_path / "cats-2" / "samples").write_text("a file where the folder belongs")
    assert list(strip.sample(41))[-1].tone == "warning"


def test_pictures_that_were_cut_short_are_made_again(start, tmp_path):
    strip, _, _ = start()
    folder = tmp_path / "cats-2" / "samples"
    (folder / "partial-base").mkdir(parents=True)
    (folder / "partial-base" / "000-1.png").write_bytes(b"torn")
    list(strip.sample(40))
    list(strip.sample(40))  # a run that went back to a checkpoint comes here twice
    assert sorted(path.name for path in folder.iterdir()) == ["base", "step-000040"]
    assert pixels(folder / "base" / "000-1.png").shape == (16, 16, 3)
