"""Every preset: it loads, says why, and fits the memory in its name by the estimate."""

import re
from dataclasses import fields

import pytest

from dpo.architectures import ARCHITECTURES
from dpo.config import TrainConfig
from dpo.config_files import PRESETS, preset_names, read_object, read_preset
from dpo.footprints import FOOTPRINTS, estimate

DEFAULTS = TrainConfig()
MODELS = {  # whose presets begin so
    "sd15": "StableDiffusionPipeline", "small": "StableDiffusionPipeline", "seed": "StableDiffusionPipeline",
    "sd21": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline", "noobai": "StableDiffusionXLPipeline",
    "sd35": "StableDiffusion3Pipeline", "flux": "FluxPipeline", "flux2": "Flux2KleinPipeline", "chroma": "ChromaPipeline",
    "z": "ZImagePipeline", "qwen": "QwenImagePipeline", "sana": "SanaPipeline", "lumina2": "Lumina2Pipeline",
    "pixart": "PixArtSigmaPipeline",
}  # fmt: skip
LARGE = [name for name in preset_names() if name != "demo"]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_it_is_for_and_why_for_each_of_its_values(name):
    preset, values = read_preset(name), read_object(PRESETS / f"{name}.json")
    settings = values.keys() - {"about", "memory_gb", "why"}
    assert preset.about.endswith(".") and preset.why.keys() == settings
    assert all(len(reason) > 5 and reason.endswith(".") for reason in preset.why.values())
    assert all(getattr(preset.config, setting) == values[setting] for setting in settings)


@pytest.mark.parametrize("name", [name for name in LARGE if name != "seed-defaults"])
def test_a_preset_sets_nothing_that_is_so_anyway(name):
    config = read_preset(name).config
    changed = {field.name for field in fields(TrainConfig) if getattr(config, field.name) != getattr(DEFAULTS, field.name)}
    assert changed == read_preset(name).why.keys()


@pytest.mark.parametrize("name", LARGE)
def test_a_preset_fits_the_memory_it_is_made_for(name):
    preset = read_preset(name)
    assert (match := re.search(r"with (\d+) GB", preset.about)) is None or float(match[1]) == preset.memory_gb
    assert (match := re.search(r"-(\d+)gb$", name)) is None or float(match[1]) == preset.memory_gb
    need = estimate(preset.config, FOOTPRINTS[MODELS[name.split("-")[0]]])
    assert 0.2 * preset.memory_gb < need.peak_gb < 0.9 * preset.memory_gb


def test_every_family_but_the_largest_has_a_preset():
    covered = {MODELS[name.split("-")[0]] for name in LARGE}
    assert ARCHITECTURES.keys() - covered <= {"Flux2Pipeline"}
    assert FOOTPRINTS.keys() >= ARCHITECTURES.keys()
