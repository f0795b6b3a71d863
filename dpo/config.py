"""The one definition of every training parameter: name, type, default, limits, help text.

The form in the Train tab, the JSON in a run folder, the presets, the command line and the README's table are all made
from `TrainConfig` or checked against it. Nothing here reads a file: dpo/config_files.py. What one value may be:
dpo/values.py. What does not go together: dpo/combinations.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from dpo.combinations import check_combinations
from dpo.layer_profile import Rule, parse_profile
from dpo.menu import LOSSES
from dpo.values import ConfigError as ConfigError
from dpo.values import check_value, parse_losses, parse_places, parse_words

SECTIONS = (
    "Basics",
    "Start",
    "Loss",
    "Reference",
    "Noise",
    "Pairs",
    "Optimizer",
    "Guards",
    "Validation",
    "Memory and speed",
    "Records",
)
BASE = ("prediction_type", "components", "base_adapter", "base_adapter_strength", "quantization", "offload", "vae_tiling")


def _param(default, label, help, *, section, min=None, max=None, choices=None):
    metadata = {"label": label, "help": help, "min": min, "max": max, "choices": choices, "section": section}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run computes. Fields of the section "Basics" are the ones a form shows unfolded."""

    # ---- Basics
    max_steps: int = _param(500, "Steps", "Optimizer steps.", min=1, section="Basics")
    learning_rate: float = _param(
        1e-4, "Learning rate", "Peak learning rate of the adapter. Too high breaks the images; see the fourth plot.",
        min=0.0, section="Basics",
    )  # fmt: skip
    beta: float = _param(
        1000.0, "Strength (beta)",
        "Pull towards the base model: higher stays closer. No hidden factor: 5000 in scripts that halve it is 2500 here.",
        min=1e-6, section="Basics",
    )  # fmt: skip
    lora_rank: int = _param(16, "Rank", "Rank of the adapter: its capacity and its file size.", min=1, max=1024, section="Basics")
    resolution: int = _param(
        512, "Resolution", "Side in pixels of a square with the area to train at; images keep their shape.",
        min=8, max=4096, section="Basics",
    )  # fmt: skip

    # ---- Start
    model: str = _param(
        "demo",
        "Model",
        "demo, a diffusers folder, a .safetensors or .gguf file, or a hub id such as stabilityai/stable-diffusion-xl-base-1.0.",
        section="Start",
    )
    prediction_type: str = _param(
        "auto", "Prediction", "What an SD 1.x, 2.x or SDXL model predicts; auto: what its files say, as shown under Model.",
        choices=("auto", "epsilon", "v_prediction", "v_prediction_zero_snr"), section="Start",
    )  # fmt: skip
    components: str = _param(
        "", "Components",
        "Folder or hub id with what a checkpoint file lacks: settings, text encoders, VAE. Empty: the usual one of its family.",
        section="Start",
    )  # fmt: skip
    base_adapter: str = _param(
        "", "Base adapter", "A LoRA that is merged into the model first, such as one that makes it need few steps. Empty: none.",
        section="Start",
    )  # fmt: skip
    base_adapter_strength: float = _param(
        1.0, "Base adapter strength", "How much of it is merged.", min=0.01, max=2.0, section="Start"
    )
    starting_adapter: str = _param(
        "", "Starting adapter", "A LoRA to go on from; its frozen copy becomes the reference. Empty: start from the base model.",
        section="Start",
    )  # fmt: skip
    adapter: str = _param(
        "lora", "Adapter", "lora is read everywhere; dora, loha, lokr and oft by fewer programs. What each is: see below.",
        choices=("lora", "dora", "loha", "lokr", "oft"), section="Start",
    )  # fmt: skip
    lora_modules: str = _param(
        "attention", "Layers", "Which layers are adapted: last_half trains the blocks that compute last, which is quicker.",
        choices=("attention", "attention+mlp", "last_half"), section="Start",
    )  # fmt: skip
    layer_profile: str = _param(
        "", "Layer profile",
        "Other ranks, alphas or learning rates by part of the model, as in up_blocks: rank 32, rate 2; mid_block: rank 0.",
        section="Start",
    )  # fmt: skip
    lora_alpha: float = _param(
        0.0, "Alpha", "Scale of the adapter is alpha / rank. 0 = same as the rank.", min=0.0, section="Start"
    )
    seed: int = _param(0, "Seed", "Decides data order, noise, timesteps and the adapter's start.", min=0, section="Start")

    # ---- Loss
    loss: str = _param(
        "sigmoid", "Loss", "One of the losses below, or several with weights, as in sigmoid 0.8, bco_pair 0.2.", section="Loss"
    )
    label_smoothing: float = _param(
        0.0, "Label smoothing", "Share of picks assumed to be mistakes (conservative DPO). exo_pair takes 0 as 0.001.",
        min=0.0, max=0.49, section="Loss",
    )  # fmt: skip
    sft_weight: float = _param(
        0.0, "Supervised mix", "Weight of the ordinary denoising loss on the chosen image, added to the preference loss.",
        min=0.0, section="Loss",
    )  # fmt: skip
    adaptive_beta: float = _param(
        0.0, "Adaptive beta", "How far beta follows the margins (beta-DPO): pairs too easy raise it. 0 = beta stays.",
        min=0.0, max=1.0, section="Loss",
    )  # fmt: skip

    # ---- Reference
    reference_adapter: str = _param(
        "", "Reference adapter", "An adapter file that the policy is compared with, instead of where training started.",
        section="Reference",
    )  # fmt: skip
    ref_model_sync_steps: int = _param(
        0, "Move the reference every", "Steps after which the reference moves towards the policy (TR-DPO). 0 = it never moves.",
        min=0, section="Reference",
    )  # fmt: skip
    ref_model_mixup_alpha: float = _param(
        1.0, "Share of the policy", "How far the reference moves: 1 = all the way, exact; less mixes the factors, approximate.",
        min=0.01, max=1.0, section="Reference",
    )  # fmt: skip
    reference_draws: int = _param(
        0, "Reference draws",
        "Fixed timestep and noise draws per pair, whose reference errors are remembered, in later runs too. 0 = fresh draws.",
        min=0, max=1024, section="Reference",
    )  # fmt: skip

    # ---- Noise
    shared_noise: bool = _param(
        True, "Shared noise", "Both images of a pair get the same timestep and noise. Off: independent draws, far noisier.",
        section="Noise",
    )  # fmt: skip
    timestep_sampling: str = _param(
        "stratified", "Timestep sampling", "stratified spreads successive pairs evenly; family: as the model was trained.",
        choices=("stratified", "uniform", "logit_normal", "family", "list"), section="Noise",
    )  # fmt: skip
    timestep_list: str = _param(
        "", "Timestep list", "For list: places in the schedule from 0 (clean) to 1 (noise), taken in turn, as in 0.8, 0.55, 0.3.",
        section="Noise",
    )  # fmt: skip
    min_timestep: float = _param(
        0.0, "Lowest timestep", "Where in the schedule draws begin: 0 is the clean image.", min=0.0, max=1.0, section="Noise"
    )
    max_timestep: float = _param(1.0, "Highest timestep", "Where draws end: 1 is pure noise.", min=0.0, max=1.0, section="Noise")

    # ---- Pairs
    epochs: float = _param(
        0.0, "Epochs", "Times every pair is seen; decides the steps if set. 0 = the steps above.", min=0.0, section="Pairs"
    )
    max_pairs: int = _param(0, "At most", "Pairs to use, drawn by the seed. 0 = all.", min=0, section="Pairs")
    min_confidence: float = _param(
        0.0, "Least confidence", "Leave out pairs whose pick was less sure than this.", min=0.0, max=1.0, section="Pairs"
    )
    rater: str = _param("", "Rater", "Only what this person picked. Empty: everyone.", section="Pairs")
    source: str = _param(
        "", "Source", "Only pairs of this origin, such as duel, best_worst or import: NAME. Empty: all.", section="Pairs"
    )
    round: str = _param("", "Round", "Only pairs of this round of candidates. Empty: all.", section="Pairs")

    # ---- Optimizer
    optimizer: str = _param(
        "adamw", "Optimizer", "adamw_8bit needs bitsandbytes, prodigy needs prodigyopt (learning rate 1).",
        choices=("adamw", "adamw_8bit", "prodigy"), section="Optimizer",
    )  # fmt: skip
    scheduler: str = _param(
        "constant", "Schedule", "How the learning rate goes from its peak to the final one.",
        choices=("constant", "cosine", "linear"), section="Optimizer",
    )  # fmt: skip
    warmup_steps: int = _param(10, "Warm-up", "Steps over which the learning rate rises to its peak.", min=0, section="Optimizer")
    final_learning_rate: float = _param(0.0, "Final learning rate", "Where cosine and linear end.", min=0.0, section="Optimizer")
    adam_beta1: float = _param(0.9, "Adam beta 1", "Memory of the mean gradient.", min=0.0, max=0.9999, section="Optimizer")
    adam_beta2: float = _param(0.999, "Adam beta 2", "Memory of the squared gradient.", min=0.0, max=0.99999, section="Optimizer")
    adam_epsilon: float = _param(
        1e-8, "Adam epsilon", "Keeps the division by small gradients tame.", min=0.0, section="Optimizer"
    )
    weight_decay: float = _param(0.01, "Weight decay", "Decoupled weight decay.", min=0.0, max=1.0, section="Optimizer")
    max_grad_norm: float = _param(
        1.0, "Gradient clip", "Clip the gradient norm to this. 0 = do not clip.", min=0.0, section="Optimizer"
    )
    ema_decay: float = _param(
        0.0, "Moving average", "Validate and export a moving average of the adapter with this decay, such as 0.99. 0 = off.",
        min=0.0, max=0.9999, section="Optimizer",
    )  # fmt: skip

    # ---- Guards
    safeguard_mu: float = _param(
        0.0, "Safeguard",
        "Hold a pair back where it would harm its chosen image (Diffusion-SDPO): 0.9 for SD 1.x, 0.6 for SDXL. 0 = off.",
        min=0.0, max=1.0, section="Guards",
    )  # fmt: skip
    max_chosen_drift: float = _param(
        0.05, "Damage limit",
        "Error on chosen images above the reference's from which a run is damaged: past 0.03 they suffer, past 0.1 they break.",
        min=0.0, section="Guards",
    )  # fmt: skip
    on_damage: str = _param(
        "stop", "On damage", "stop: go back to the best checkpoint and end. warn: say so and go on.",
        choices=("stop", "warn"), section="Guards",
    )  # fmt: skip

    # ---- Validation
    validation_share: float = _param(
        0.1, "Validation share", "Share of prompts kept out of training to measure on. Their words decide which.",
        min=0.0, max=0.5, section="Validation",
    )  # fmt: skip
    validate_every: int = _param(20, "Validate every", "Steps between validations. 0 = never.", min=0, section="Validation")
    keep_best: bool = _param(
        True, "Keep the best", "Export the adapter of the best validation instead of the last step.", section="Validation"
    )
    patience: int = _param(
        0, "Patience", "Stop after this many validations in a row without a better one. 0 = never.", min=0, section="Validation"
    )
    patience_metrics: str = _param(
        "accuracy, chosen_reward", "Patience watches", "Some of accuracy, chosen_reward and loss.", section="Validation"
    )
    patience_rule: str = _param(
        "both",
        "Patience rule",
        "both: all of them must stall. either: one is enough.",
        choices=("both", "either"),
        section="Validation",
    )

    # ---- Memory and speed
    batch_size: int = _param(1, "Batch size", "Pairs per forward pass.", min=1, section="Memory and speed")
    accumulation: int = _param(4, "Accumulation", "Forward passes per optimizer step.", min=1, section="Memory and speed")
    execution: str = _param(
        "full_concurrent", "Execution",
        "Same result, different memory: full_concurrent is fastest, sequential holds one image at a time.",
        choices=("full_concurrent", "policy_concurrent", "sequential"), section="Memory and speed",
    )  # fmt: skip
    precision: str = _param(
        "auto", "Precision", "auto: bfloat16 on a GPU that has it, float32 elsewhere.",
        choices=("auto", "float32", "bfloat16", "float16"), section="Memory and speed",
    )  # fmt: skip
    gradient_checkpointing: bool = _param(
        False, "Gradient checkpointing", "Much less memory for about a third more time.", section="Memory and speed"
    )
    quantization: str = _param(
        "none", "Quantization",
        "Pack the frozen model's linear layers into 4 (nf4) or 8 bits. nf4 and int8 need bitsandbytes, the others torchao.",
        choices=("none", "nf4", "int8", "int8_torchao", "fp8_torchao"), section="Memory and speed",
    )  # fmt: skip
    offload: float = _param(
        0.0, "Offload",
        "Share of the frozen model's weights that stay in the computer's memory and are fetched twice a pass: slow. 0 = none.",
        min=0.0, max=1.0, section="Memory and speed",
    )  # fmt: skip
    vae_tiling: bool = _param(
        False, "VAE tiling", "Encode and decode large images tile by tile: less memory, faint seams.", section="Memory and speed"
    )
    compile: bool = _param(
        False, "Compile", "torch.compile on the model's repeated blocks: a slow first step, then faster ones.",
        section="Memory and speed",
    )  # fmt: skip
    attention: str = _param(
        "auto", "Attention", "How attention is computed; flash and xformers need their packages.",
        choices=("auto", "native", "flash", "xformers"), section="Memory and speed",
    )  # fmt: skip
    gpus: int = _param(
        1,
        "GPUs",
        "Processes on this machine that share each step. The accumulation must be a multiple.",
        min=1,
        section="Memory and speed",
    )

    # ---- Records
    save_every: int = _param(100, "Save every", "Steps between checkpoints.", min=1, section="Records")
    keep_checkpoints: int = _param(
        3, "Keep checkpoints", "Newest checkpoints to keep, besides the best one.", min=1, section="Records"
    )
    sample_every: int = _param(
        0,
        "Sample every",
        "Steps between sample pictures of the policy, on fixed prompts and seeds. 0 = none.",
        min=0,
        section="Records",
    )
    sample_prompts: int = _param(
        3, "Sample prompts", "How many prompts are sampled, held-out ones first.", min=1, max=16, section="Records"
    )
    tracker: str = _param(
        "none", "Tracker", "Also report to this service; its package must be installed. TensorBoard is always written.",
        choices=("none", "wandb", "trackio"), section="Records",
    )  # fmt: skip

    def __post_init__(self):
        for parameter in fields(self):
            check_value(parameter, getattr(self, parameter.name))
        check_combinations(self)

    @property
    def scale_alpha(self) -> float:
        """The LoRA alpha to use: `lora_alpha`, or the rank where that is 0."""
        return self.lora_alpha or float(self.lora_rank)

    @property
    def layer_rules(self) -> tuple[Rule, ...]:
        """`layer_profile`, rule by rule."""
        return parse_profile(self.layer_profile)

    @property
    def losses(self) -> dict[str, float]:
        """Weight by name, as `loss` says: one name alone has weight 1."""
        return parse_losses(self.loss)

    @property
    def supervised_mix(self) -> float:
        """Weight of the supervised term beside a preference loss: `sft_weight`, or that of sft as one of several losses."""
        losses = self.losses
        return self.sft_weight + (losses.get("sft", 0.0) if len(losses) > 1 else 0.0)

    @property
    def data(self) -> str:
        """What an item of training is: "pairs", "likes" or "rankings"."""
        return LOSSES[next(iter(self.losses))].data

    @property
    def reference_mode(self) -> str:
        """What the policy is compared with, derived anew on every load and never stored.

        "none": no loss asks for one. "file": `reference_adapter`. "adapter": the frozen copy of the starting adapter.
        "base": the model without adapter. A reference that moves (`ref_model_sync_steps`) starts from one of the last three.
        """
        if not any(LOSSES[name].needs_reference for name in self.losses):
            return "none"
        if self.reference_adapter:
            return "file"
        return "adapter" if self.starting_adapter else "base"

    @property
    def base(self) -> dict[str, object]:
        """The settings that `dpo.models.load_pipeline` takes besides model and precision."""
        return {name: getattr(self, name) for name in BASE}

    @property
    def timestep_places(self) -> tuple[float, ...]:
        """`timestep_list` as numbers in [0, 1)."""
        return parse_places("timestep_list", self.timestep_list)

    @property
    def patience_watches(self) -> tuple[str, ...]:
        """`patience_metrics`, one by one."""
        return tuple(parse_words(self.patience_metrics))

    @property
    def step_size(self) -> int:
        """Pairs (or other items) of one optimizer step, over all processes."""
        return self.batch_size * self.accumulation

    def num_steps(self, num_items: int) -> int:
        """Optimizer steps of a run on this many training items."""
        return max(1, round(self.epochs * num_items / self.step_size)) if self.epochs else self.max_steps
