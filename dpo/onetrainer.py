"""Settings of OneTrainer, in particular of its preference training (pull request 1403), as settings of ours.

`COUNTERPARTS` is the table: their field -> ours, with what becomes of the value. What has no counterpart and would change
what comes out is told in a note, never dropped in silence. Their beta needs no factor: both multiply the margin by it as it
is written. Field names, their meanings and defaults are facts about their files; no code of theirs is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpo.config import TrainConfig
from dpo.config_files import load_config, read_object
from dpo.values import ConfigError

MARKS = {"training_method", "base_model_name", "rlhf_enabled", "rlhf_dpo_beta"}  # of a file that is theirs
STRENGTH_OF_ADAPTIVE_BETA = 0.5  # theirs is on or off, with this strength
PRECISIONS = {"FLOAT_32": "float32", "FLOAT_16": "float16", "BFLOAT_16": "bfloat16"}
OPTIMIZERS = {"ADAMW": "adamw", "ADAMW_8BIT": "adamw_8bit", "PRODIGY": "prodigy"}
# Their kind of adapter -> ours, and the field of theirs that is its rank.
ADAPTERS = {
    "LORA": ("lora", "lora_rank"),
    "LOHA": ("loha", "lora_rank"),
    "LOKR": ("lokr", "lokr_dim"),
    "OFT_2": ("oft", "oft_block_size"),
}


class _NoCounterpart(Exception):
    """Why a value cannot be taken over. The message becomes a note."""


@dataclass(frozen=True)
class Counterpart:
    """`ours`: the field of TrainConfig, or its property `reference_mode`. `convert`: their value -> ours, as it is if not
    given; None leaves ours at its default."""

    ours: str
    convert: Callable[[object], object] = lambda value: value


def _choose(names: dict[str, object], fallback: str) -> Callable[[object], object]:
    def convert(value: object) -> object:
        if value not in names:
            raise _NoCounterpart(fallback)
        return names[value]

    return convert


def _steps(value: object) -> object:
    """A warm-up of 1 and below is a share of their run, whose length only they know."""
    if 0 < value <= 1:
        raise _NoCounterpart("it is a share of their run. warmup_steps stays at its default; set it to a number of steps.")
    return int(value)


def _side(value: object) -> object:
    if not str(value).isdigit():
        raise _NoCounterpart("one resolution is trained at a time. resolution stays at its default; set it to a number.")
    return int(value)


def _checkpointing(value: object) -> object:
    if value == "CPU_OFFLOADED":
        raise _NoCounterpart(
            "nothing is moved to the CPU here. Set gradient_checkpointing, or execution=sequential for less memory."
        )
    return value in (True, "ON")


def _reference(value: object) -> object:
    if value not in ("NEW_ADAPTER", "EXISTING_ADAPTER"):
        raise _NoCounterpart("the nearest is ref_model_sync_steps, which moves the reference towards the policy.")
    return None  # follows from starting_adapter, on every load


def _objective(value: object) -> object:
    if value not in ("SIGMOID", "IPO"):
        raise ConfigError(
            f"rlhf_dpo_objective={value} has no counterpart. Set it to SIGMOID or IPO in the file, then import again."
        )
    return str(value).lower()


def _mode(value: object) -> object:
    if value != "DPO":
        raise ConfigError(f"rlhf_mode={value} has no counterpart. Set it to DPO in the file, then import again.")
    return None  # which DPO: rlhf_dpo_objective


def _enabled(value: object) -> object:
    if not value:
        raise _NoCounterpart("preferences are learned here in any case.")
    return None


COUNTERPARTS: dict[str, Counterpart] = {
    # ---- preference training
    "rlhf_enabled": Counterpart("loss", _enabled),
    "rlhf_mode": Counterpart("loss", _mode),
    "rlhf_dpo_objective": Counterpart("loss", _objective),
    "rlhf_dpo_beta": Counterpart("beta"),
    "rlhf_dpo_ipo_tau": Counterpart("beta", lambda value: None),  # takes beta's place with IPO: see _ipo
    "rlhf_dpo_adaptive_beta": Counterpart("adaptive_beta", lambda value: STRENGTH_OF_ADAPTIVE_BETA if value else 0.0),
    "rlhf_dpo_label_smoothing": Counterpart("label_smoothing"),
    "rlhf_supervised_mix": Counterpart("sft_weight"),
    "rlhf_dpo_ref_mode": Counterpart("reference_mode", _reference),
    "rlhf_dpo_shared_noise": Counterpart("shared_noise"),
    "rlhf_dpo_execution_mode": Counterpart("execution", lambda value: str(value).lower()),
    "rlhf_dpo_validation_percentage": Counterpart("validation_share", lambda value: value / 100),
    "rlhf_dpo_validation": Counterpart("validation_share", lambda value: None if value else 0.0),
    "rlhf_dpo_patience_value": Counterpart("patience"),
    "rlhf_dpo_patience_enabled": Counterpart("patience", lambda value: None if value else 0),
    "rlhf_dpo_patience_mode": Counterpart("patience_rule", lambda value: str(value).lower()),
    "rlhf_dpo_save_best": Counterpart("keep_best"),
    # ---- the rest
    "base_model_name": Counterpart("model"),
    "lora_model_name": Counterpart("starting_adapter"),
    "lora_rank": Counterpart("lora_rank"),
    "lora_alpha": Counterpart("lora_alpha"),
    "seed": Counterpart("seed"),
    "resolution": Counterpart("resolution", _side),
    "epochs": Counterpart("epochs"),
    "batch_size": Counterpart("batch_size"),
    "gradient_accumulation_steps": Counterpart("accumulation"),
    "learning_rate": Counterpart("learning_rate"),
    "learning_rate_warmup_steps": Counterpart("warmup_steps", _steps),
    "learning_rate_scheduler": Counterpart(
        "scheduler",
        _choose(
            {"CONSTANT": "constant", "LINEAR": "linear", "COSINE": "cosine"},
            "the learning rate stays constant. Choose scheduler=cosine or linear if it should fall.",
        ),
    ),
    "clip_grad_norm": Counterpart("max_grad_norm", lambda value: value or 0.0),
    "min_noising_strength": Counterpart("min_timestep"),
    "max_noising_strength": Counterpart("max_timestep"),
    "timestep_distribution": Counterpart(
        "timestep_sampling",
        _choose(
            {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal"},
            "timestep_sampling stays at stratified, which is uniform with less chance in it.",
        ),
    ),
    "train_dtype": Counterpart("precision", _choose(PRECISIONS, "precision stays at auto.")),
    "gradient_checkpointing": Counterpart("gradient_checkpointing", _checkpointing),
    "compile": Counterpart("compile"),
    "ema_decay": Counterpart("ema_decay"),
    "ema": Counterpart("ema_decay", lambda value: 0.0 if value == "OFF" else None),
}
OF_THE_OPTIMIZER: dict[str, Counterpart] = {
    "optimizer": Counterpart("optimizer", _choose(OPTIMIZERS, "optimizer stays at adamw.")),
    "beta1": Counterpart("adam_beta1"),
    "beta2": Counterpart("adam_beta2"),
    "eps": Counterpart("adam_epsilon"),
    "weight_decay": Counterpart("weight_decay"),
}
# Fields without a counterpart: the values at which they change nothing, and what is different here at any other.
WITHOUT: dict[str, tuple[tuple, str]] = {
    "rlhf_sft_anchor_weight": ((0, 0.5), "it weighs concepts of ordinary images, and only pairs are read here; see sft_weight."),
    "rlhf_dpo_timestep_margin_logging": ((True, False), ""),  # always recorded
    "dropout_probability": ((0,), "it would blur the comparison with the reference, so there is none."),
    "learning_rate_scaler": (("NONE",), "the learning rate is used as it is written."),
    "loss_scaler": (("NONE",), "the learning rate is used as it is written."),
    "loss_weight_fn": (("CONSTANT",), "timesteps are not weighted."),
    "mae_strength": ((0,), "errors are mean squared errors."),
    "log_cosh_strength": ((0,), "errors are mean squared errors."),
    "huber_strength": ((0,), "errors are mean squared errors."),
    "mse_strength": ((1,), "errors are mean squared errors, with weight 1."),
    "offset_noise_weight": ((0,), "noise is plain."),
    "perturbation_noise_weight": ((0,), "noise is plain."),
    "noising_weight": ((0,), "logit_normal has mean 0 and spread 1."),
    "noising_bias": ((0,), "logit_normal has mean 0 and spread 1."),
    "timestep_shift": ((1,), "the schedule is not shifted."),
    "dynamic_timestep_shifting": ((False,), "the schedule is not shifted."),
    "rescale_noise_scheduler_to_zero_terminal_snr": ((False,), "the model's own scheduler decides."),
    "force_v_prediction": ((False,), "the model's own scheduler decides."),
    "force_epsilon_prediction": ((False,), "the model's own scheduler decides."),
    "layer_filter": (("",), "the attention layers of the denoiser are trained."),
    "masked_training": ((False,), "the whole image counts."),
    "layer_offload_fraction": ((0,), "nothing is moved to the CPU. execution=sequential takes the least memory."),
    "concept_file_name": (("",), "pairs come from the project. Bring theirs in with `python -m dpo pairs import`."),
}


def load_settings(path: Path, **overrides) -> tuple[TrainConfig, list[str]]:
    """(settings, notes) of a file of ours or of OneTrainer's; `overrides` win. Raises ConfigError."""
    if MARKS & read_object(path).keys():
        return import_onetrainer(path, **overrides)
    return load_config(path, **overrides)


def import_onetrainer(path: Path, **overrides) -> tuple[TrainConfig, list[str]]:
    """(settings, notes) of a config that OneTrainer wrote: what is not taken over and matters is in the notes.

    Raises ConfigError for a file that cannot be read, full fine-tuning, another objective, or values out of our limits.
    """
    theirs = read_object(path)
    method = theirs.get("training_method", "LORA")
    if method != "LORA":
        raise ConfigError(
            f"{path}: training_method={method} is not offered: the reference is the same model with the adapter off, and a model "
            "that is changed itself has none. Set it to LORA."
        )
    notes: list[str] = []
    optimizer = theirs.get("optimizer")
    values = _take(theirs, COUNTERPARTS, "", notes)
    values |= _take(optimizer if isinstance(optimizer, dict) else {}, OF_THE_OPTIMIZER, "optimizer.", notes)
    for name, (harmless, consequence) in WITHOUT.items():
        if name in theirs and theirs[name] not in harmless:
            notes.append(f"{name}={theirs[name]!r} has no counterpart: {consequence}")
    for name in sorted(theirs.keys() - COUNTERPARTS.keys() - WITHOUT.keys()):
        if name.startswith("rlhf_") and theirs[name]:
            notes.append(f"{name}={theirs[name]!r} is not known here, and left out.")
    _adapter(theirs, values, notes)
    _ipo(theirs, values, notes)
    _switched_off(theirs, values, notes)
    _final_rate(theirs, values)
    _clock(theirs, values, notes)
    _gpus(theirs, values)
    if theirs.get("rlhf_dpo_ref_mode") == "EXISTING_ADAPTER" and not values.get("starting_adapter"):
        notes.append(
            "rlhf_dpo_ref_mode=EXISTING_ADAPTER without lora_model_name: the reference is the base. Set starting_adapter."
        )
    quantised = [name for name in ("unet", "transformer", "prior") if _dtype(theirs.get(name)) not in (*PRECISIONS, "NONE", "")]
    notes += [f"{name}.weight_dtype={_dtype(theirs[name])} has no counterpart: the model is not quantised." for name in quantised]
    if any(isinstance(part, dict) and part.get("train") for name, part in theirs.items() if name.startswith("text_encoder")):
        notes.append("text_encoder.train=True has no counterpart: only the denoiser learns.")
    if "rlhf_dpo_beta" not in theirs:
        notes.append("rlhf_dpo_beta is not in the file, and its default has changed over time: beta stays at ours.")
    return TrainConfig(**{**values, **overrides}), notes


def _take(theirs: dict, table: dict[str, Counterpart], prefix: str, notes: list[str]) -> dict[str, object]:
    """Our values for those of their fields that are in the file. Where two of theirs become one, the later row decides."""
    values = {}
    for name, counterpart in table.items():
        value = theirs.get(name)
        if name not in theirs or (value is None and name != "clip_grad_norm"):
            continue
        try:
            converted = counterpart.convert(value)
        except _NoCounterpart as reason:
            notes.append(f"{prefix}{name}={value!r} has no counterpart: {reason}")
            continue
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{prefix}{name}={value!r} cannot be read as OneTrainer writes it. Mend it in the file.") from error
        if converted is not None:
            values[counterpart.ours] = converted
    return values


def _adapter(theirs: dict, values: dict, notes: list[str]) -> None:
    """Which kind of adapter, where it is fresh: one to go on from says itself what it is."""
    kind = theirs.get("peft_type", "LORA")
    if kind not in ADAPTERS:
        notes.append(f"peft_type={kind!r} has no counterpart: a LoRA is trained.")
    ours, rank = ADAPTERS.get(kind, ADAPTERS["LORA"])
    if rank in theirs:
        values["lora_rank"] = theirs[rank]
    if ours == "oft":
        values.pop("lora_alpha", None)  # it has none
    if ours == "lora" and theirs.get("lora_decompose"):
        ours = "dora"
    if not values.get("starting_adapter"):
        values["adapter"] = ours


def _ipo(theirs: dict, values: dict, notes: list[str]) -> None:
    """Their IPO aims at a margin of 1 / (2 tau) and knows no beta, label smoothing or adaptive beta; our beta is its tau."""
    if values.get("loss") != "ipo":
        return
    values["beta"] = theirs.get("rlhf_dpo_ipo_tau", 1000.0)
    for name in ("label_smoothing", "adaptive_beta"):
        if values.pop(name, 0):
            notes.append(f"{name} is left out: it does not apply to IPO, there or here.")


def _switched_off(theirs: dict, values: dict, notes: list[str]) -> None:
    """Values that their switch leaves without effect, and that would be refused or have an effect here."""
    if theirs.get("ema", "OFF") == "OFF":
        values.pop("ema_decay", None)
    if values.get("patience") and values.get("validation_share") == 0:
        values["patience"] = 0
        notes.append("rlhf_dpo_patience_enabled is left out: rlhf_dpo_validation is off, so there is nothing to wait for.")


def _dtype(part: object) -> str:
    return str(part.get("weight_dtype", "")) if isinstance(part, dict) else ""


def _final_rate(theirs: dict, values: dict) -> None:
    factor = theirs.get("learning_rate_min_factor")
    if factor and values.get("scheduler") in ("cosine", "linear") and "learning_rate" in values:
        values["final_learning_rate"] = factor * values["learning_rate"]


def _clock(theirs: dict, values: dict, notes: list[str]) -> None:
    """What they do every so many epochs or minutes is done every so many steps here."""
    for name, unit_name, ours in (
        ("validate_after", "validate_after_unit", "validate_every"),
        ("sample_after", "sample_after_unit", "sample_every"),
        ("backup_after", "backup_after_unit", "save_every"),
    ):
        unit = theirs.get(unit_name)
        if unit == "STEP":
            values[ours] = int(theirs[name])
        elif unit == "NEVER" and ours != "save_every":
            values[ours] = 0
        elif unit not in (None, "NEVER"):
            notes.append(
                f"{name}={theirs.get(name)} {unit} has no counterpart: only steps are counted, and {ours} stays as it is."
            )
    if theirs.get("rolling_backup"):
        values["keep_checkpoints"] = theirs.get("rolling_backup_count", 3)


def _gpus(theirs: dict, values: dict) -> None:
    """Their batch and accumulation are of one GPU, ours of the whole step."""
    if theirs.get("multi_gpu"):
        values["gpus"] = len([word for word in str(theirs.get("device_indexes", "")).split(",") if word.strip()]) or 1
        values["accumulation"] = values.get("accumulation", 1) * values["gpus"]
