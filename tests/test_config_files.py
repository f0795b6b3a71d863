"""Settings on disk: round trip, presets, files of older versions, files that are none."""

import json
from dataclasses import asdict, fields, replace

import pytest

from dpo.config import ConfigError, TrainConfig
from dpo.config_files import ABOUT_PRESETS, FIRST_VERSION, PRESETS, load_config, load_preset, preset_names, save_config


def test_saving_and_loading_gives_the_same_config(tmp_path):
    config = TrainConfig(beta=123.5, model="a/b", max_steps=7)
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == (config, [])
    assert load_config(tmp_path / "config.json", max_steps=9) == (replace(config, max_steps=9), [])
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_full_disk_leaves_the_settings_that_were_there(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    save_config(TrainConfig(max_steps=7), path)

    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpo.disk.os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        save_config(TrainConfig(max_steps=8), path)
    assert load_config(path)[0].max_steps == 7
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_an_unknown_setting_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"beta_dpo": 5000}')
    with pytest.raises(ConfigError, match=r"config.json: beta_dpo is not a setting of this version"):
        load_config(tmp_path / "config.json")


@pytest.mark.parametrize("content", ['{"beta":', "\xff", ""])
def test_a_torn_file_is_a_sentence(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config.json cannot be read as settings"):
        load_config(tmp_path / "config.json")


def test_a_file_of_something_else_is_a_sentence(tmp_path):
    (tmp_path / "pairs.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"pairs.json holds no settings but a list. Write an object of names and values."):
        load_config(tmp_path / "pairs.json")


def write_first_version(path, **values):
    """A config.json as the first version wrote it: all it knew, and nothing of what came later."""
    known = {name: value for name, value in asdict(TrainConfig()).items() if name in FIRST_VERSION}
    path.write_text(json.dumps({**known, **values}))


def test_a_config_of_an_older_version_loads_and_says_what_has_changed(tmp_path):
    path = tmp_path / "config.json"
    write_first_version(path, max_steps=42, execution="sequential")
    config, notes = load_config(path)
    assert config == TrainConfig(max_steps=42, execution="sequential")
    newer = len(fields(TrainConfig)) - len(FIRST_VERSION)
    assert notes[0] == f"config.json was written by an older version: {newer} newer settings are at their defaults."
    assert "keep_best=True: the adapter of the best validation is exported; it was that of the last step." in notes

    save_config(config, path)
    assert load_config(path) == (config, [])


def test_a_file_that_leaves_settings_out_is_no_older_version(tmp_path):
    (tmp_path / "mine.json").write_text('{"beta": 300}')
    assert load_config(tmp_path / "mine.json") == (TrainConfig(beta=300), [])


def test_the_reference_mode_is_derived_on_every_load_and_never_stored(tmp_path):
    path = tmp_path / "config.json"
    save_config(TrainConfig(starting_adapter="a.safetensors"), path)
    assert "reference_mode" not in json.loads(path.read_text())
    assert load_config(path)[0].reference_mode == "adapter"
    assert load_config(path, starting_adapter="")[0].reference_mode == "base"
    path.write_text('{"reference_mode": "adapter"}')
    with pytest.raises(ConfigError, match="reference_mode is not a setting"):
        load_config(path)


def test_every_preset_loads_and_demo_comes_first():
    assert preset_names()[0] == "demo"
    assert len(preset_names()) == len(list(PRESETS.glob("*.json")))
    for name in preset_names():
        values = json.loads((PRESETS / f"{name}.json").read_text())
        settings = {key: value for key, value in values.items() if key not in ABOUT_PRESETS}
        assert settings.items() <= vars(load_preset(name)).items()


def test_seed_defaults_are_those_of_the_seed():
    config = load_preset("seed-defaults")
    assert (config.loss, config.beta, config.label_smoothing, config.sft_weight) == ("sigmoid", 5000.0, 0.0, 0.0)
    assert (config.shared_noise, config.validation_share) == (True, 0.1)


def test_a_preset_that_is_not_there_names_those_that_are():
    with pytest.raises(ConfigError, match=r"preset='dmeo' is not known. Choose one of: demo, "):
        load_preset("dmeo")
