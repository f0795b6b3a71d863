import json
from dataclasses import fields, replace

import pytest

from dpo.config import PRESETS, ConfigError, TrainConfig, load_preset, preset_names


def test_a_value_out_of_range_says_its_name_and_what_is_accepted():
    with pytest.raises(ConfigError, match=r"^beta=0.0 is too small. Set it to 1e-06 or more.$"):
        TrainConfig(beta=0.0)
    with pytest.raises(ConfigError, match=r"^label_smoothing=0.5 is too large. Set it to 0.49 or less.$"):
        TrainConfig(label_smoothing=0.5)
    with pytest.raises(ConfigError, match=r"^execution='fast' is not known. Choose one of: full_concurrent, "):
        TrainConfig(execution="fast")


@pytest.mark.parametrize("value", ["many", 2.5, None, True])
def test_a_value_of_the_wrong_type_says_so(value):
    with pytest.raises(ConfigError, match=r"^max_steps=.* is not a whole number. Set it to a whole number, such as 500.$"):
        TrainConfig(max_steps=value)


def test_not_a_number_is_refused():
    with pytest.raises(ConfigError, match="learning_rate=nan is not a finite number"):
        TrainConfig(learning_rate=float("nan"))


def test_saving_and_loading_gives_the_same_config(tmp_path):
    config = TrainConfig(beta=123.5, model="a/b", max_steps=7)
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert TrainConfig.load(tmp_path / "config.json", max_steps=9) == replace(config, max_steps=9)


def test_an_unknown_setting_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"beta_dpo": 5000}')
    with pytest.raises(ConfigError, match=r"config.json: beta_dpo is not a setting of this version"):
        TrainConfig.load(tmp_path / "config.json")


def test_a_torn_file_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"beta":')
    with pytest.raises(ConfigError, match=r"config.json cannot be read as settings"):
        TrainConfig.load(tmp_path / "config.json")


def test_every_preset_loads_and_demo_comes_first():
    assert preset_names()[0] == "demo"
    assert len(preset_names()) == len(list(PRESETS.glob("*.json")))
    for name in preset_names():
        assert json.loads((PRESETS / f"{name}.json").read_text()).items() <= vars(load_preset(name)).items()


def test_every_parameter_has_a_label_and_a_help_text():
    for field in fields(TrainConfig):
        assert field.metadata["label"] and field.metadata["help"].endswith("."), field.name


def test_alpha_zero_means_the_rank():
    assert TrainConfig(lora_rank=8).scale_alpha == 8.0
    assert TrainConfig(lora_rank=8, lora_alpha=4.0).scale_alpha == 4.0
