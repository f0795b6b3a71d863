"""Every combination of settings that cannot be meant is refused, with its reason and what to do."""

import pytest

from dpo.config import ConfigError, TrainConfig
from dpo.menu import LOSSES, NOT_OFFERED

REFUSED = [
    (dict(components="a/b"), r"components='a/b' completes a checkpoint file, and model='demo' is none. Empty it, or choose a"),
    (dict(base_adapter_strength=0.5), r"base_adapter_strength=0.5 is of a base_adapter, and there is none. Set it to 1."),
    (
        dict(model="m.gguf", quantization="nf4"),
        r"quantization='nf4' needs whole weights, and those of a GGUF .* Set it to",
    ),
    (dict(model="m.GGUF", offload=0.5), r"offload=0.5 needs whole weights, and those of a GGUF file are packed. Set it to 0.0."),
    (dict(model="m.gguf", base_adapter="a"), r"base_adapter='a' needs whole weights, and those of a GGUF file are packed."),
    (dict(quantization="int8", offload=0.5), r"offload=0.5 moves whole weights, and quantization='int8' packs them. Choose one."),
    (dict(quantization="nf4", adapter="loha"), r"adapter='loha' computes with the model's own weights, and cannot with those"),
    (dict(offload=0.5, adapter="dora"), r"adapter='dora' computes with .* with those of offload. Choose lora, or keep"),
    (dict(model="m.gguf", adapter="lokr"), r"adapter='lokr' computes with .* with those of gguf. Choose lora, or keep"),
    (dict(quantization="nf4", compile=True), r"compile=True needs plain layers, and quantization='nf4' makes others of them."),
    (dict(offload=1.0, compile=True), r"compile=True needs plain layers, and offload=1.0 makes others of them. Set compile to"),
    (dict(model="m.gguf", compile=True), r"compile=True needs plain layers, and a GGUF file makes others of them. Set compile"),
    (dict(loss="sigmoid, kto"), r"loss='sigmoid, kto' mixes sigmoid on pairs with kto on likes. Train on one kind of data"),
    (dict(loss="sft", sft_weight=0.1), r"sft_weight=0.1 and loss='sft' add the same term twice. Keep one of them."),
    (dict(loss="kto", sft_weight=0.1), r"sft_weight=0.1 needs chosen images, and loss='kto' learns from likes. Set it to 0."),
    (
        dict(loss="hinge", label_smoothing=0.1),
        r"label_smoothing=0.1 means nothing to hinge. Set it to 0, or choose one of: sigmoid",
    ),
    (
        dict(loss="robust"),
        r"loss='robust' with label_smoothing=0 is sigmoid. Choose sigmoid, or say what share of picks is wrong.",
    ),
    (
        dict(loss="mapo", reference_adapter="a"),
        r"reference_adapter='a' needs a reference, and loss='mapo' has none. Set it to ''.",
    ),
    (
        dict(loss="sft", ref_model_sync_steps=5),
        r"ref_model_sync_steps=5 needs a reference, and loss='sft' has none. Set it to 0.",
    ),
    (dict(loss="mapo", reference_draws=4), r"reference_draws=4 needs a reference, and loss='mapo' has none. Set it to 0."),
    (dict(ref_model_sync_steps=5, reference_draws=4), r"reference_draws=4 remembers .* ref_model_sync_steps=5 moves. Set one"),
    (
        dict(ref_model_mixup_alpha=0.5),
        r"ref_model_mixup_alpha=0.5 moves nothing while ref_model_sync_steps=0 keeps the reference",
    ),
    (
        dict(loss="mapo", adaptive_beta=0.5),
        r"adaptive_beta=0.5 follows the margins of pairs .* loss='mapo' has none. Set it to 0.",
    ),
    (dict(loss="kto", adaptive_beta=0.5), r"adaptive_beta=0.5 follows the margins of pairs .* loss='kto' has none. Set it to 0."),
    (dict(loss="sft", safeguard_mu=0.9), r"safeguard_mu=0.9 holds back a rejected image .* loss='sft' trains on no such pairs."),
    (dict(loss="rankdpo", safeguard_mu=0.9), r"safeguard_mu=0.9 holds back a rejected image .* loss='rankdpo' trains on no such"),
    (dict(min_timestep=0.6, max_timestep=0.6), r"min_timestep=0.6 is not below max_timestep=0.6. Lower one or raise the other."),
    (dict(timestep_sampling="list"), r"timestep_sampling='list' needs timestep_list, such as 0.8, 0.55, 0.3."),
    (dict(timestep_list="0.5"), r"timestep_list='0.5' is used by timestep_sampling='list' alone. Choose that, or empty it."),
    (
        dict(timestep_sampling="list", timestep_list="0.2, 0.9", max_timestep=0.8),
        r"timestep_list='0.2, 0.9': 0.9 lies outside of min_timestep=0 to max_timestep=0.8. Take it out, or widen the range.",
    ),
    (dict(final_learning_rate=1e-6), r"final_learning_rate=1e-06 is where cosine and linear end, and scheduler='constant' stays"),
    (dict(scheduler="cosine", final_learning_rate=1e-3), r"final_learning_rate=0.001 is above learning_rate=0.0001, the peak."),
    (
        dict(optimizer="prodigy"),
        r"learning_rate=0.0001 with optimizer='prodigy' is a share of the rate that it finds .* Set it to 1.",
    ),
    (
        dict(patience=3, validate_every=0),
        r"patience=3 counts validations, and validate_every=0 makes none. Set patience to 0, or",
    ),
    (dict(patience=3, validation_share=0.0), r"patience=3 counts validations, and validation_share=0.0 makes none. Set patience"),
    (dict(patience_metrics="margin"), r"patience_metrics='margin' is not known. Name some of: accuracy, chosen_reward, loss."),
    (dict(patience_metrics=""), r"patience_metrics='' is not known. Name some of: accuracy, chosen_reward, loss."),
    (dict(gpus=4, accumulation=6), r"accumulation=6 cannot be shared evenly by gpus=4. Make it a multiple, such as 8."),
    (dict(loss="sigmoid 0.5, sigmoid 0.5"), r"names sigmoid twice. Name it once, with one weight."),
    (dict(loss="sigmoid 0"), r"loss='sigmoid 0' gives sigmoid the weight 0. Give it a number above 0."),
    (dict(loss="sigmoid nan"), r"gives sigmoid the weight nan. Give it a number above 0."),
    (dict(loss="sigmoid much"), r"'much' is not a weight of sigmoid. Write sigmoid 0.8, and commas between losses."),
    (dict(loss="dpo"), r"loss='dpo': 'dpo' is not known. Choose some of: sigmoid, hinge"),
    (dict(loss=""), r"loss='': '' is not known."),
    (
        dict(timestep_sampling="list", timestep_list="0.5, one"),
        r"timestep_list='0.5, one' is not a list of numbers. Write them as",
    ),
    (
        dict(timestep_sampling="list", timestep_list="1"),
        r"timestep_list='1': 1 is no place in the schedule. Each is from 0 to less",
    ),
]


@pytest.mark.parametrize(("values", "says"), REFUSED, ids=[" ".join(map(str, values)) for values, _ in REFUSED])
def test_what_cannot_be_meant_is_refused_with_its_reason(values, says):
    with pytest.raises(ConfigError, match=says):
        TrainConfig(**values)


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_a_loss_that_is_not_offered_says_why_and_what_instead(name):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(loss=name)
    assert str(caught.value) == f"loss={name!r}: {name} is not offered: {NOT_OFFERED[name]}"
    assert "Choose " in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        dict(loss="sigmoid 0.8, bco_pair 0.2", label_smoothing=0.1),  # one of them knows smoothing
        dict(loss="robust", label_smoothing=0.1),
        dict(loss="rankdpo", adaptive_beta=0.5, label_smoothing=0.1),
        dict(loss="mapo", safeguard_mu=0.6),
        dict(ref_model_sync_steps=5, ref_model_mixup_alpha=0.5),
        dict(reference_adapter="a", starting_adapter="b", reference_draws=4, shared_noise=False),
        dict(timestep_sampling="list", timestep_list="0.0, 0.999"),
        dict(scheduler="linear", final_learning_rate=1e-4),
        dict(optimizer="prodigy", learning_rate=1.0),
        dict(patience=2, patience_metrics="loss", patience_rule="either"),
        dict(gpus=4, accumulation=8),
    ],
    ids=str,
)
def test_what_can_be_meant_is_accepted(values):
    TrainConfig(**values)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_menu_can_be_chosen(name):
    config = TrainConfig(loss=name, label_smoothing=0.1 if name == "robust" else 0.0)
    assert config.losses == {name: 1.0} and config.data == LOSSES[name].data


def test_weights_of_several_losses_are_read_in_their_order():
    assert list(TrainConfig(loss=" bco_pair 2,sigmoid  0.25 , sft").losses.items()) == [
        ("bco_pair", 2.0), ("sigmoid", 0.25), ("sft", 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({}, "base"),
        (dict(starting_adapter="a"), "adapter"),
        (dict(starting_adapter="a", reference_adapter="b"), "file"),
        (dict(reference_adapter="b"), "file"),
        (dict(loss="mapo"), "none"),
        (dict(loss="sft", starting_adapter="a"), "none"),
        (dict(loss="sigmoid 1, sft 0.1"), "base"),
    ],
    ids=str,
)
def test_the_reference_follows_from_the_other_settings(values, mode):
    assert TrainConfig(**values).reference_mode == mode
