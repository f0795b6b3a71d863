import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dpo.adapters import POLICY, AdapterError, attach_new_adapter, attach_starting_adapter, check_adapter
from dpo.families import load_family
from dpo.sampling import Sampler, SampleSettings
from tests.test_scoring import draw_noise, gradients, make_batch
from tests.tiny import build_pipeline

SETTINGS = SampleSettings(sampling_steps=3)
ROWS = [("a cat", 1), ("a dog", 2)]


def arrays(images):
    return np.stack([np.asarray(image) for image in images])


@pytest.fixture
def learned(tmp_path):
    """An adapter file with alpha != rank, and the images its own pipeline makes."""
    family, adapter = build_learned(rank=2, alpha=6.0)
    adapter.save(tmp_path / "adapter" / "pytorch_lora_weights.safetensors")
    images = arrays(Sampler(family.pipeline, "tiny").sample(ROWS, SETTINGS))
    return tmp_path / "adapter" / "pytorch_lora_weights.safetensors", images


def build_learned(rank, alpha):
    family = load_family(build_pipeline())
    adapter = attach_new_adapter(family, rank=rank, alpha=alpha, seed=0)
    with torch.no_grad():
        for name, parameter in family.denoiser.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.3)
    return family, adapter


def test_an_exported_adapter_in_a_fresh_pipeline_gives_the_same_image_also_when_alpha_is_not_the_rank(learned):
    path, images = learned
    sampler = Sampler(build_pipeline(), "tiny", path)
    difference = np.abs(arrays(sampler.sample(ROWS, SETTINGS, strength=1.0)).astype(int) - images)
    assert difference.max() <= 1  # training computes attention in another order of summation
    assert np.abs(arrays(sampler.sample(ROWS, SETTINGS)).astype(int) - images).max() > 10


def test_strength_zero_equals_the_base_to_the_bit_and_strength_grows_from_there(learned):
    sampler = Sampler(build_pipeline(), "tiny", learned[0])
    base = arrays(sampler.sample(ROWS, SETTINGS))
    assert np.array_equal(arrays(sampler.sample(ROWS, SETTINGS, strength=0.0)), base)
    half, full = (np.abs(arrays(sampler.sample(ROWS, SETTINGS, strength=s)).astype(int) - base).mean() for s in (0.5, 1.0))
    assert 0 < half < full
    assert np.array_equal(arrays(Sampler(build_pipeline(), "tiny").sample(ROWS, SETTINGS)), base)


def test_an_image_is_the_same_alone_and_in_a_batch():
    sampler = Sampler(build_pipeline(), "tiny")
    together = arrays(sampler.sample(ROWS, SETTINGS)).astype(int)
    alone = arrays([sampler.sample([row], SETTINGS)[0] for row in ROWS])
    assert np.abs(together - alone).max() <= 1  # the order of summation may differ by a grey level


def test_only_the_policy_trains_and_toggling_the_reference_does_not_change_that(learned):
    family = load_family(build_pipeline())
    adapter = attach_starting_adapter(family, learned[0])
    for _ in range(2):
        trainable = {name for name, parameter in family.denoiser.named_parameters() if parameter.requires_grad}
        assert trainable and all(f".{POLICY}." in name for name in trainable)
        with adapter.as_reference():
            pass


def test_a_starting_adapter_is_its_own_reference_at_first_and_the_reference_stays_when_the_policy_moves(learned):
    family = load_family(build_pipeline())
    adapter = attach_starting_adapter(family, learned[0])
    batch = make_batch(family)
    noised = draw_noise(family, batch, 0)
    from dpo.scoring import errors, reference_errors

    with torch.no_grad():
        start = errors(family, noised)
        assert torch.equal(start, reference_errors(family, adapter, noised))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.05)
    gradients(family, adapter, batch, "full_concurrent")
    optimizer.step()
    with torch.no_grad():
        assert torch.equal(reference_errors(family, adapter, noised), start)
        assert not torch.equal(errors(family, noised), start)


def test_base_and_starting_adapter_are_different_references(learned):
    """A reference that is always the base would pass the test above with a fresh adapter."""
    from dpo.scoring import reference_errors

    started = load_family(build_pipeline())
    fresh = load_family(build_pipeline())
    first, second = attach_starting_adapter(started, learned[0]), attach_new_adapter(fresh, rank=2, alpha=2, seed=0)
    noised = draw_noise(started, make_batch(started), 0)
    assert not torch.equal(reference_errors(started, first, noised), reference_errors(fresh, second, noised))


def test_the_file_header_carries_rank_and_alpha(learned):
    with safe_open(learned[0], framework="pt") as file:
        header = str(file.metadata())
    assert '"unet.lora_alpha": 6.0' in header and '"unet.r": 2' in header


def test_files_that_are_no_adapter_are_refused_with_the_reason(tmp_path):
    with pytest.raises(AdapterError, match=r"missing.safetensors is not a .safetensors file"):
        check_adapter(tmp_path / "missing.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(AdapterError, match="cannot be read"):
        check_adapter(tmp_path / "torn.safetensors")
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(AdapterError, match="holds no LoRA"):
        check_adapter(tmp_path / "model.safetensors")
    save_file({"lora_te_text_model.lora_down.weight": torch.zeros(2)}, tmp_path / "text.safetensors")
    with pytest.raises(AdapterError, match="also changes the text encoder"):
        check_adapter(tmp_path / "text.safetensors")


def test_an_adapter_of_another_architecture_is_refused(tmp_path):
    layer = "unet.nowhere.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.zeros(2, 8), f"{layer}.lora_B.weight": torch.zeros(8, 2)}
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=r"does not fit|holds no weights"):
        Sampler(build_pipeline(), "tiny", tmp_path / "other.safetensors")


def test_a_saved_image_names_the_run_or_file_its_adapter_came_from_and_the_strength(learned, tmp_path):
    sampler = Sampler(build_pipeline(), "tiny", learned[0])
    image = sampler.sample(ROWS, SETTINGS, strength=0.5)[0]
    assert f"Adapter: {tmp_path.name}, Adapter strength: 0.5" in sampler.parameters("a cat", 1, SETTINGS, image, 0.5)
    assert "Adapter" not in sampler.parameters("a cat", 1, SETTINGS, image)
    shutil.copy(learned[0], tmp_path / "mine.safetensors")
    sampler = Sampler(build_pipeline(), "tiny", tmp_path / "mine.safetensors")
    assert "Adapter: mine, " in sampler.parameters("a cat", 1, SETTINGS, image, 1.0)
