"""The adapter in a checkpoint paints what the run's exported adapter of that step paints."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dpo.adapter_files import AdapterError
from dpo.adapter_loading import load_adapter, save_adapter
from dpo.adapters import POLICY
from dpo.checkpoint_adapters import load_checkpoint
from dpo.config_files import save_config
from dpo.families import load_family
from dpo.metadata import Lora, read_image
from dpo.runs import run_of
from dpo.sample_settings import SampleSettings
from dpo.sampling import Sampler
from tests.families.checks import difference
from tests.test_trainer import CONFIG, start  # noqa: F401
from tests.tiny import build_pipeline

SHORT = replace(CONFIG, max_steps=3, validate_every=0)
SETTINGS = SampleSettings(sampling_steps=2)


def exported(family, path) -> dict[str, torch.Tensor]:
    """What a family's policy is, as a file has it."""
    from peft import get_peft_model_state_dict

    save_adapter(family, get_peft_model_state_dict(family.denoiser, adapter_name=POLICY), POLICY, path)
    return load_file(path)


@pytest.mark.parametrize("change", [{}, {"ema_decay": 0.5}, {"adapter": "dora"}, {"adapter": "lokr"}], ids=str)
def test_the_last_checkpoint_is_the_adapter_the_run_exports(change, start, tmp_path):  # noqa: F811
    events, _, run = start(config=replace(SHORT, **change))
    list(events)
    family = load_family(build_pipeline())
    load_checkpoint(family, run.checkpoint_files[-1], POLICY)
    found, expected = exported(family, tmp_path / "found.safetensors"), load_file(run.adapter)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_of_a_run_that_went_on_from_an_adapter_has_that_adapters_shape(start, tmp_path):  # noqa: F811
    events, _, first = start(config=SHORT)
    list(events)
    events, _, run = start("second", config=SHORT)
    list(events)
    # The rank of the file counts, not that of the settings.
    save_config(replace(SHORT, starting_adapter=str(first.adapter), lora_rank=4), run.path / "config.json")
    family = load_family(build_pipeline())
    load_checkpoint(family, run.checkpoint_files[-1], POLICY)
    assert all(torch.equal(tensor, load_file(run.adapter)[name]) for name, tensor in exported(family, tmp_path / "f").items())


def test_a_sampler_takes_a_checkpoint_beside_other_adapters_and_images_name_run_and_step(start, tmp_path):  # noqa: F811
    events, _, run = start("cats-1", config=SHORT)
    list(events)
    checkpoint = run.checkpoint_files[-1]
    assert run_of(checkpoint) == run_of(run.adapter) == run
    pipeline = build_pipeline()
    by_file, by_checkpoint = Sampler(pipeline, "tiny", run.adapter), Sampler(pipeline, "tiny", checkpoint, "other")
    rows = [("a cat", 1), ("a dog", 2)]
    images = by_checkpoint.sample(rows, SETTINGS, strength=3.0)
    assert difference(images, by_file.sample(rows, SETTINGS, strength=3.0)) == 0
    assert difference(images, by_checkpoint.sample(rows, SETTINGS)) > 0
    by_checkpoint.save(images[0], tmp_path / "a.webp", "a cat", 1, SETTINGS, 3.0)
    assert read_image(tmp_path / "a.webp").loras == (Lora("cats-1 step 3", 3.0),)


def test_what_is_no_checkpoint_of_this_model_is_refused_by_name(start, tmp_path):  # noqa: F811
    events, _, run = start(config=SHORT)
    list(events)
    family = load_family(build_pipeline())
    stray = tmp_path / "stray.pt"
    stray.write_bytes(run.checkpoint_files[-1].read_bytes())
    with pytest.raises(AdapterError, match=r"stray.pt is no checkpoint of a run"):
        load_checkpoint(family, stray, POLICY)
    half = run.checkpoints / "step-000009.pt"
    half.write_bytes(stray.read_bytes()[:1000])
    with pytest.raises(AdapterError, match=r"step-000009.pt cannot be read"):
        load_checkpoint(family, half, POLICY)
    load_adapter(family, run.adapter, "kept")  # the family is as usable as before
