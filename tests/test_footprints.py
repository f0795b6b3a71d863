"""Will it fit: numbers worked out by hand, and what is proposed where it does not."""

from dataclasses import replace

import pytest

from dpo.architectures import ARCHITECTURES
from dpo.config import TrainConfig
from dpo.config_files import load_preset, preset_names
from dpo.footprints import ALLOWANCE_GB, FOOTPRINTS, Device, Footprint, estimate, fit_line, remedies, work
from dpo.models import pipeline_name

# A billion weights, encoders of a tenth, an adapter of 10 million, 3 GB kept for an image of 1024, 1 GB with checkpointing.
ROUND = Footprint(1.0, 0.1, 10.0, 3.0, 1.0)
CONFIG = TrainConfig(model="owner/name", resolution=1024, lora_rank=16, precision="bfloat16")
CARD = Device("a card", 12.0, True)


def training(**options):
    return estimate(replace(CONFIG, **options), ROUND).training_gb - ALLOWANCE_GB


def test_a_step_holds_weights_adapter_and_what_two_images_keep():
    """2 GB of weights, 0.16 of the adapter (16 bytes a weight), 2 images of 3 GB."""
    assert training() == pytest.approx(2 + 0.16 + 6)
    assert training(batch_size=2) == pytest.approx(2 + 0.16 + 12)
    assert training(execution="sequential", batch_size=4) == pytest.approx(2 + 0.16 + 3)
    assert training(gradient_checkpointing=True) == pytest.approx(2 + 0.16 + 2)
    assert training(resolution=512) == pytest.approx(2 + 0.16 + 1.5)
    assert training(precision="float32") == pytest.approx(4 + 0.16 + 12)
    assert training(lora_rank=32, optimizer="adamw_8bit") == pytest.approx(2 + 0.2 + 6)
    assert training(quantization="nf4") == pytest.approx(0.56 + 0.16 + 6)
    assert training(offload=0.5) == pytest.approx(1 + 0.16 + 6)
    assert training(lora_modules="last_half") == pytest.approx(2 + 0.16 + 3)


def test_auto_is_half_precision_on_a_gpu_and_whole_elsewhere():
    auto = replace(CONFIG, precision="auto")
    assert estimate(auto, ROUND) == estimate(CONFIG, ROUND)
    assert estimate(auto, ROUND, on_gpu=False) == estimate(replace(CONFIG, precision="float32"), ROUND, on_gpu=False)


def test_encoders_can_be_what_does_not_fit():
    need = estimate(replace(CONFIG, execution="sequential", gradient_checkpointing=True), replace(ROUND, encoders_b=8.0))
    assert need.peak_gb == need.encoding_gb > 16 > need.training_gb


def test_what_is_proposed_is_the_cheapest_that_fits_and_no_more():
    assert remedies(CONFIG, ROUND, 12.0) == ([], True)
    assert remedies(CONFIG, ROUND, 7.0) == (["execution=sequential"], True)
    assert remedies(CONFIG, ROUND, 4.5) == (["execution=sequential", "gradient_checkpointing=True"], True)
    assert remedies(CONFIG, ROUND, 3.8) == (["execution=sequential", "gradient_checkpointing=True", "quantization=nf4"], True)
    said, fits = remedies(CONFIG, ROUND, 1.0)
    assert not fits and said[3:] == ["resolution=512"]


def test_without_a_gpu_remedies_are_of_whole_precision_and_one_that_does_not_go_with_other_settings_is_left_out():
    """Sequential: 4 GB of weights, 0.16 of the adapter, 6 kept for one image, and the allowance: 11.4."""
    auto = replace(CONFIG, precision="auto")
    assert remedies(auto, ROUND, 11.5, on_gpu=False) == (["execution=sequential"], True)
    said, fits = remedies(replace(CONFIG, compile=True), ROUND, 3.8)  # compiled, a model cannot be packed
    assert "quantization=nf4" not in said and fits


def test_the_sentence_says_what_is_needed_what_is_there_and_what_to_change():
    config = replace(CONFIG, model="x/y", gradient_checkpointing=True)
    assert fit_line(config, "StableDiffusionXLPipeline", CARD) == ("Needs about 11 GB; a card has 12 GB: it should fit.", True)
    line, fits = fit_line(replace(config, gradient_checkpointing=False), "StableDiffusionXLPipeline", CARD)
    assert not fits
    assert line == (
        "Needs about 19 GB, and a card has 12 GB. It should fit with execution=sequential, gradient_checkpointing=True."
    )
    line, fits = fit_line(config, "FluxPipeline", replace(CARD, memory_gb=4.0))
    assert not fits and "It will not fit even with" in line


def test_nothing_is_said_of_the_demo_or_of_an_unknown_model():
    assert fit_line(replace(CONFIG, model="demo"), "StableDiffusionPipeline", CARD) == ("", True)
    assert fit_line(CONFIG, "OtherPipeline", CARD) == ("", True)


def test_the_work_of_a_step_is_its_images_times_their_passes():
    """8 pairs of 2 images: forward, backward, reference; one forward more each for checkpointing and for sequential."""
    config = replace(CONFIG, batch_size=2, accumulation=4)
    assert work(config) == 8 * 2 * 3
    assert work(replace(config, gradient_checkpointing=True, execution="sequential")) == 8 * 2 * 5
    assert work(replace(config, loss="mapo")) == 8 * 2 * 2
    assert work(replace(config, resolution=512)) == 8 * 2 * 3 / 4


@pytest.mark.parametrize(
    ("hub_id", "expected"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXLPipeline"),
        ("Laxhar/noobai-XL-Vpred-1.0", "StableDiffusionXLPipeline"),
        ("black-forest-labs/FLUX.1-dev", "FluxPipeline"),
        ("black-forest-labs/FLUX.2-klein-base-4B", "Flux2KleinPipeline"),
        ("someone/cats", ""),
    ],
)
def test_a_hub_id_tells_its_architecture_where_its_name_does(hub_id, expected):
    assert pipeline_name(hub_id) == expected


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "demo"])
def test_the_model_of_a_preset_tells_its_architecture(name):
    assert pipeline_name(load_preset(name).model) in ARCHITECTURES | FOOTPRINTS
