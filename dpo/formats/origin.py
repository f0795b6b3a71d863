"""How an adapter came to be, as far as a run's folder or a file's header tells: what its exports say of themselves. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from dpo.adapter_files import adapter_header
from dpo.config import TrainConfig
from dpo.events import CheckpointSaved, Event, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.runs import Run

PEFT_SETTINGS = "lora_adapter_metadata"  # where diffusers keeps them in a header
PROMPT = "a photograph"


@dataclass(frozen=True)
class Origin:
    """What is not known is empty. `settings`: of TrainConfig, of every path the last part only, for a file may be given away.

    metrics: of the validation at `step`, or of the training step where none was measured. pairs, held_out: how many.
    """

    name: str
    model: str = ""
    date: str = ""
    step: int = 0
    pairs: int = 0
    held_out: int = 0
    prompt: str = PROMPT
    settings: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_run(cls, run: Run) -> Origin:
        """Raises ConfigError or RunError for a run whose files are damaged."""
        config, events = run.config, run.events()
        started = next((event for event in reversed(events) if isinstance(event, RunStarted)), RunStarted(0, 0, 0, 0))
        step = kept_step(events, config)
        return cls(
            name=run.name,
            model=_plain(config.model),
            date=datetime.fromtimestamp(run.adapter.stat().st_mtime, UTC).isoformat(timespec="seconds"),
            step=step,
            pairs=started.num_pairs,
            held_out=started.num_validation,
            prompt=next(iter([*run.held_out, *(item.prompt for item in run.items)]), PROMPT),
            settings={name: _plain(value) if isinstance(value, str) else value for name, value in asdict(config).items()},
            metrics=_metrics(events, step),
        )

    @classmethod
    def of_file(cls, path: Path, model: str = "") -> Origin:
        """Of an export, what it says; of another file, its name. model: its base, if a person says so."""
        header = read_header(path)
        names = ("model", "date", "step", "pairs", "held_out", "config", "metrics")
        said = {name: header.get(f"dpo.{name}", "") for name in names}
        return cls(
            name=path.stem,
            model=_plain(model) if model else said["model"],
            date=said["date"],
            step=int(said["step"] or 0),
            pairs=int(said["pairs"] or 0),
            held_out=int(said["held_out"] or 0),
            settings=json.loads(said["config"] or "{}"),
            metrics=json.loads(said["metrics"] or "{}"),
        )

    @property
    def comment(self) -> str:
        """How it was trained, as a sentence; "" if that is not known."""
        if not self.settings:
            return ""
        pairs = f"{self.pairs:,} {'pair' if self.pairs == 1 else 'pairs'}" if self.pairs else "pairs"
        return (
            f"Preference optimisation (DPO) on {pairs} of chosen and rejected images: loss {self.settings['loss']}, beta "
            f"{self.settings['beta']:g}, learning rate {self.settings['learning_rate']:g}."
        )

    @property
    def accuracy(self) -> tuple[float, float, float] | None:
        """(share, low, high) of pairs kept out of training; None if none was measured."""
        found = tuple(self.metrics.get(f"rewards/accuracies{end}") for end in ("", "_low", "_high"))
        return None if None in found else found


def read_header(path: Path) -> dict[str, str]:
    """A file's own words of itself. Raises AdapterError."""
    return adapter_header(path).metadata


def described(path: Path) -> tuple[str, str]:
    """(diffusers pipeline, kind of adapter) that an adapter file of a run says it is for and is; "" for what it does not say."""
    header = read_header(path)
    settings = {key.split(".", 1)[-1]: value for key, value in json.loads(header.get(PEFT_SETTINGS, "{}")).items()}
    kind = settings.get("peft_type", "").lower()
    return header.get("dpo.pipeline", ""), "dora" if settings.get("use_dora") else kind


def kept_step(events: Sequence[Event], config: TrainConfig) -> int:
    """The step whose adapter a run exported; 0 if it went back to one that its events do not name."""
    end = next((event for event in reversed(events) if isinstance(event, RunEnded)), None)
    best = [event.step for event in events if isinstance(event, CheckpointSaved) and event.is_best]
    is_damaged = end is not None and end.reason == "damaged"
    if best and (config.keep_best or is_damaged):
        return best[-1]
    return end.step if end is not None and not is_damaged else 0


def _metrics(events: Sequence[Event], step: int) -> dict[str, float]:
    for kind in (ValidationEnd, StepEnd):
        found = [event.metrics for event in events if isinstance(event, kind) and event.step == step and event.metrics]
        if found:
            return found[-1]
    return {}


def _plain(text: str) -> str:
    """Of a path the last part, anything else as it is."""
    path = Path(text).expanduser()
    return path.name if text and (path.is_absolute() or path.exists()) else text
