"""A config as OneTrainer's preference training writes it becomes ours, and what does not is told."""

import json
from dataclasses import fields

import pytest

from dpo.config import ConfigError, TrainConfig
from dpo.config_files import save_config
from dpo.onetrainer import COUNTERPARTS, OF_THE_OPTIMIZER, WITHOUT, import_onetrainer, load_settings

# Every field of this name that the pull request has had, in its first form and since.
SEED = (
    "rlhf_enabled rlhf_mode rlhf_dpo_objective rlhf_dpo_beta rlhf_dpo_ipo_tau rlhf_dpo_adaptive_beta rlhf_dpo_label_smoothing "
    "rlhf_supervised_mix rlhf_dpo_ref_mode rlhf_dpo_shared_noise rlhf_dpo_execution_mode rlhf_dpo_validation "
    "rlhf_dpo_validation_percentage rlhf_dpo_patience_enabled rlhf_dpo_patience_value rlhf_dpo_patience_mode rlhf_dpo_save_best"
).split()


def file_of(folder, **changes):
    """A file with the fields that a run of their trainer has, at their defaults where these matter here."""
    values = {
        "__version": 11, "training_method": "LORA", "model_type": "STABLE_DIFFUSION_15", "workspace_dir": "workspace/cats",
        "base_model_name": "stable-diffusion-v1-5/stable-diffusion-v1-5", "concept_file_name": "training_concepts/cats.json",
        "learning_rate": 3e-6, "learning_rate_scheduler": "COSINE", "learning_rate_warmup_steps": 200.0,
        "learning_rate_min_factor": 0.5, "learning_rate_scaler": "NONE", "epochs": 3, "batch_size": 2,
        "gradient_accumulation_steps": 8, "ema": "OFF", "ema_decay": 0.999, "train_dtype": "BFLOAT_16", "resolution": "768",
        "clip_grad_norm": 1.0, "dropout_probability": 0.0, "min_noising_strength": 0.05, "max_noising_strength": 0.95,
        "timestep_distribution": "LOGIT_NORMAL", "noising_weight": 0.0, "noising_bias": 0.0, "timestep_shift": 1.0,
        "gradient_checkpointing": "ON", "compile": False, "multi_gpu": False, "device_indexes": "", "peft_type": "LORA",
        "lora_model_name": "", "lora_rank": 32, "lora_alpha": 1.0, "loss_weight_fn": "CONSTANT", "mse_strength": 1.0,
        "validate_after": 50, "validate_after_unit": "STEP", "sample_after": 10, "sample_after_unit": "MINUTE",
        "backup_after": 30, "backup_after_unit": "MINUTE", "rolling_backup": False, "rolling_backup_count": 3,
        "unet": {"train": True, "weight_dtype": "FLOAT_16"}, "text_encoder": {"train": False, "weight_dtype": "FLOAT_16"},
        "optimizer": {
            "optimizer": "ADAMW_8BIT", "beta1": 0.95, "beta2": None, "eps": 1e-7, "weight_decay": 0.02, "fused": False,
        },
        "rlhf_enabled": True, "rlhf_mode": "DPO", "rlhf_dpo_beta": 5000.0, "rlhf_dpo_label_smoothing": 0.1,
        "rlhf_supervised_mix": 0.25, "rlhf_dpo_shared_noise": True, "rlhf_dpo_execution_mode": "SEQUENTIAL",
        "rlhf_dpo_ref_mode": "NEW_ADAPTER", "rlhf_dpo_validation": True, "rlhf_dpo_validation_percentage": 20.0,
        "rlhf_dpo_patience_enabled": True, "rlhf_dpo_patience_value": 5, "rlhf_dpo_patience_mode": "EITHER",
        "rlhf_dpo_save_best": False,
    }  # fmt: skip
    path = folder / "theirs.json"
    path.write_text(json.dumps({**values, **changes}))
    return path


def test_every_field_of_the_seed_has_its_counterpart():
    ours = {field.name for field in fields(TrainConfig)} | {"reference_mode"}
    assert set(SEED) <= COUNTERPARTS.keys()
    assert {counterpart.ours for counterpart in (COUNTERPARTS | OF_THE_OPTIMIZER).values()} <= ours
    assert not COUNTERPARTS.keys() & WITHOUT.keys()


def test_a_config_is_taken_over_field_by_field(tmp_path):
    config, notes = import_onetrainer(file_of(tmp_path))
    assert config == TrainConfig(
        model="stable-diffusion-v1-5/stable-diffusion-v1-5", lora_rank=32, lora_alpha=1.0, resolution=768,
        epochs=3, batch_size=2, accumulation=8, learning_rate=3e-6, scheduler="cosine", warmup_steps=200,
        final_learning_rate=1.5e-6, optimizer="adamw_8bit", adam_beta1=0.95, adam_epsilon=1e-7, weight_decay=0.02,
        max_grad_norm=1.0, precision="bfloat16", min_timestep=0.05, max_timestep=0.95, timestep_sampling="logit_normal",
        gradient_checkpointing=True, execution="sequential", beta=5000.0, label_smoothing=0.1, sft_weight=0.25,
        validation_share=0.2, validate_every=50, patience=5, patience_rule="either", keep_best=False,
    )  # fmt: skip
    assert notes == [
        "concept_file_name='training_concepts/cats.json' has no counterpart: pairs come from the project. Bring theirs in with "
        "`python -m dpo pairs import`.",
        "sample_after=10 MINUTE has no counterpart: only steps are counted, and sample_every stays as it is.",
        "backup_after=30 MINUTE has no counterpart: only steps are counted, and save_every stays as it is.",
    ]


def test_full_fine_tuning_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ConfigError, match=r"training_method=FINE_TUNE is not offered: the reference is the same model with the"):
        import_onetrainer(file_of(tmp_path, training_method="FINE_TUNE"))


@pytest.mark.parametrize("changes", [{"rlhf_dpo_objective": "LINEAR"}, {"rlhf_mode": "GRPO"}], ids=str)
def test_another_objective_is_refused_rather_than_replaced(tmp_path, changes):
    (name, value), *_ = changes.items()
    with pytest.raises(ConfigError, match=f"{name}={value} has no counterpart. Set it to .* then import again"):
        import_onetrainer(file_of(tmp_path, **changes))


def test_ipo_takes_its_tau_as_beta_and_knows_no_smoothing(tmp_path):
    path = file_of(tmp_path, rlhf_dpo_objective="IPO", rlhf_dpo_ipo_tau=800.0, rlhf_dpo_adaptive_beta=True)
    config, notes = import_onetrainer(path)
    assert (config.loss, config.beta, config.label_smoothing, config.adaptive_beta) == ("ipo", 800.0, 0.0, 0.0)
    assert "label_smoothing is left out: it does not apply to IPO, there or here." in notes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(rlhf_dpo_adaptive_beta=True), dict(adaptive_beta=0.5)),
        (dict(rlhf_dpo_validation=False, rlhf_dpo_patience_enabled=False), dict(validation_share=0.0, patience=0)),
        (dict(rlhf_dpo_validation=False), dict(validation_share=0.0, patience=0)),
        (dict(rlhf_dpo_patience_enabled=False), dict(validation_share=0.2, patience=0)),
        (dict(rlhf_dpo_shared_noise=False), dict(shared_noise=False)),
        (dict(ema="GPU"), dict(ema_decay=0.999)),
        (dict(ema="OFF"), dict(ema_decay=0.0)),
        (dict(clip_grad_norm=None), dict(max_grad_norm=0.0)),
        (dict(gradient_checkpointing=False), dict(gradient_checkpointing=False)),  # as older files have it
        (dict(multi_gpu=True, device_indexes="0, 1"), dict(gpus=2, accumulation=16)),
        (dict(lora_model_name="cats.safetensors"), dict(starting_adapter="cats.safetensors", reference_mode="adapter")),
        (dict(learning_rate_scheduler="CONSTANT"), dict(scheduler="constant", final_learning_rate=0.0)),
        (dict(validate_after_unit="NEVER", rlhf_dpo_patience_enabled=False), dict(validate_every=0)),
        (dict(rolling_backup=True, rolling_backup_count=5), dict(keep_checkpoints=5)),
        (dict(seed=7), dict(seed=7)),
        (dict(lora_decompose=True), dict(adapter="dora", lora_rank=32, lora_alpha=1.0)),
        (dict(lora_decompose=True, lora_model_name="cats.safetensors"), dict(adapter="lora")),  # the file says itself
        (dict(peft_type="LOHA"), dict(adapter="loha", lora_rank=32)),
        (dict(peft_type="LOKR", lokr_dim=4, lora_decompose=True), dict(adapter="lokr", lora_rank=4)),
        (dict(peft_type="OFT_2", oft_block_size=48), dict(adapter="oft", lora_rank=48, lora_alpha=0.0)),
    ],
    ids=str,
)
def test_switches_decide_what_their_numbers_mean(tmp_path, changes, expected):
    config, _ = import_onetrainer(file_of(tmp_path, **changes))
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (dict(learning_rate_scheduler="REX"), "learning_rate_scheduler='REX' has no counterpart: the learning rate stays"),
        (dict(learning_rate_warmup_steps=0.1), "learning_rate_warmup_steps=0.1 has no counterpart: it is a share of their run."),
        (dict(resolution="512,768"), "resolution='512,768' has no counterpart: one resolution is trained at a time."),
        (dict(train_dtype="TFLOAT_32"), "train_dtype='TFLOAT_32' has no counterpart: precision stays at auto."),
        (dict(timestep_distribution="COS_MAP"), "timestep_distribution='COS_MAP' has no counterpart: timestep_sampling stays"),
        (dict(gradient_checkpointing="CPU_OFFLOADED"), "gradient_checkpointing='CPU_OFFLOADED' has no counterpart: nothing is"),
        (dict(optimizer={"optimizer": "LION"}), "optimizer.optimizer='LION' has no counterpart: optimizer stays at adamw."),
        (dict(rlhf_enabled=False), "rlhf_enabled=False has no counterpart: preferences are learned here in any case."),
        (dict(rlhf_dpo_ref_mode="EMA_ADAPTER"), "rlhf_dpo_ref_mode='EMA_ADAPTER' has no counterpart: the nearest is"),
        (dict(rlhf_dpo_ref_mode="EXISTING_ADAPTER"), "rlhf_dpo_ref_mode=EXISTING_ADAPTER without lora_model_name: "),
        (dict(rlhf_dpo_hard_pair_curriculum=True), "rlhf_dpo_hard_pair_curriculum=True is not known here, and left out."),
        (dict(peft_type="NEW"), "peft_type='NEW' has no counterpart: a LoRA is trained."),
        (dict(dropout_probability=0.1), "dropout_probability=0.1 has no counterpart: it would blur the comparison"),
        (dict(offset_noise_weight=0.05), "offset_noise_weight=0.05 has no counterpart: noise is plain."),
        (dict(unet={"weight_dtype": "NFLOAT_4"}), "unet.weight_dtype=NFLOAT_4 has no counterpart: the model is not quantised."),
        (dict(text_encoder={"train": True}), "text_encoder.train=True has no counterpart: only the denoiser learns."),
        (dict(rlhf_dpo_validation=False), "rlhf_dpo_patience_enabled is left out: rlhf_dpo_validation is off"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
def test_what_has_no_counterpart_and_matters_is_told(tmp_path, changes, note):
    _, notes = import_onetrainer(file_of(tmp_path, **changes))
    assert [text for text in notes if text.startswith(note)], notes


def test_a_missing_beta_is_told_because_its_default_has_moved(tmp_path):
    path = file_of(tmp_path)
    values = json.loads(path.read_text())
    del values["rlhf_dpo_beta"]
    path.write_text(json.dumps(values))
    config, notes = import_onetrainer(path)
    assert config.beta == TrainConfig().beta and [note for note in notes if note.startswith("rlhf_dpo_beta is not in the file")]


def test_a_value_that_they_never_write_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"^learning_rate_warmup_steps='many' cannot be read as OneTrainer writes it."):
        import_onetrainer(file_of(tmp_path, learning_rate_warmup_steps="many"))
    with pytest.raises(ConfigError, match=r"^beta='high' is not a number."):
        import_onetrainer(file_of(tmp_path, rlhf_dpo_beta="high"))


def test_a_file_is_known_for_whose_it_is(tmp_path):
    theirs = file_of(tmp_path)
    assert load_settings(theirs, max_steps=9) == import_onetrainer(theirs, max_steps=9)
    save_config(TrainConfig(beta=7.0), tmp_path / "ours.json")
    assert load_settings(tmp_path / "ours.json", max_steps=9) == (TrainConfig(beta=7.0, max_steps=9), [])
