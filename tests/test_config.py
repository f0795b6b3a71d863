from dataclasses import fields

import pytest

from dpo.config import SECTIONS, ConfigError, TrainConfig


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


def test_every_parameter_has_a_label_and_a_help_text():
    for field in fields(TrainConfig):
        assert field.metadata["label"] and field.metadata["help"].endswith("."), field.name


def test_alpha_zero_means_the_rank():
    assert TrainConfig(lora_rank=8).scale_alpha == 8.0
    assert TrainConfig(lora_rank=8, lora_alpha=4.0).scale_alpha == 4.0


def test_every_parameter_is_in_a_section_and_sections_stand_together():
    order = [field.metadata["section"] for field in fields(TrainConfig)]
    assert tuple(dict.fromkeys(order)) == SECTIONS
    assert order == sorted(order, key=SECTIONS.index)


def test_defaults_are_within_their_limits_and_go_together():
    TrainConfig()


def test_epochs_decide_the_steps_where_they_are_set():
    config = TrainConfig(max_steps=7, batch_size=2, accumulation=4)
    assert config.step_size == 8 and config.num_steps(100) == 7
    epochs = TrainConfig(max_steps=7, batch_size=2, accumulation=4, epochs=2.0)
    assert epochs.num_steps(100) == 25
    assert epochs.num_steps(1) == 1  # never none
