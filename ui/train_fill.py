"""Filling the form of the Train tab: from a preset, a file, another run, and what the browser remembers of it.

What a browser or a file holds is untrusted: other types and oversized texts are dropped, and every value is checked again when
Train is pressed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import gradio as gr

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.config_files import Preset, preset_names, read_preset
from dpo.onetrainer import load_settings
from dpo.rounds import next_config
from dpo.runs import Run, clone_config, suggest_run_name
from ui.session import LONGEST_ID, Studio
from ui.train_form import INPUTS, Form, bad_lines, reasons
from ui.words import count

TYPES = {"str": str, "int": (int, float), "float": (int, float), "bool": bool}


def from_preset(form: Form, name: str) -> dict:
    try:
        preset = read_preset(name)
    except StudioError as error:
        return {form.problems: gr.HTML(lines=bad_lines(error))}
    nothing = gr.HTML(lines=[])
    return {form.problems: nothing, form.notes: nothing, **said_of(form, preset), **_filled(form, preset.config)}


def said_of(form: Form, preset: Preset) -> dict:
    return {form.about_preset: gr.HTML(text=preset.about), form.why: gr.HTML(lines=reasons(preset))}


def from_file(form: Form, path: str) -> dict:
    """Settings out of a file of ours, of an older version, or of OneTrainer, and what changed on the way."""
    name = Path(path).name
    try:
        config, notes = load_settings(Path(path))
    except StudioError as error:
        lines = [line | {"text": line["text"].replace(path, name)} for line in bad_lines(error)]  # not where the upload lies
        return {form.notes: gr.HTML(lines=lines)}
    changed = sum(getattr(config, name) != field.default for name, field in INPUTS.items())
    said = f"{name}: {count(changed, 'setting')} not at {'its' if changed == 1 else 'their'} default."
    lines = [{"text": said, "tone": "calm"}, *({"text": note} for note in notes)]
    return {form.notes: gr.HTML(lines=lines), **_filled(form, config)}


def from_run(studio: Studio, form: Form, run: Run) -> dict:
    try:
        config = clone_config(run)
    except StudioError as error:
        return {form.notes: gr.HTML(lines=bad_lines(error))}
    said = f"These are the settings of {run.name}. Change what you like, then press Train."
    name = suggest_run_name(studio.project.runs, stem(run.name))
    return {form.notes: gr.HTML(lines=[{"text": said, "tone": "calm"}]), form.name: name, **_filled(form, config)}


def from_round(studio: Studio, form: Form, run: Run, candidates: str) -> dict:
    """The settings of the round after `run`, on pairs of these candidates."""
    try:
        config = next_config(run, candidates)
    except StudioError as error:
        return {form.notes: gr.HTML(lines=bad_lines(error))}
    said = (
        f"The round after {run.name}: it starts from that adapter, which is also what it is compared with, and learns from the "
        f"pairs of {candidates}. Pick those first."
    )
    name = suggest_run_name(studio.project.runs, stem(run.name))
    return {form.notes: gr.HTML(lines=[{"text": said, "tone": "calm"}]), form.name: name, **_filled(form, config)}


def from_browser(studio: Studio, form: Form, stored: object) -> dict:
    """What was typed before the page was loaded again. A name that is taken by now gives way to the next free one."""
    if not isinstance(stored, dict):
        return {}
    updates = {form.settings[name]: value for name, value in stored.items() if name in INPUTS and _fits(name, value)}
    if stored.get("preset") in preset_names():
        updates |= {form.preset: stored["preset"], **said_of(form, read_preset(stored["preset"]))}
    name = stored.get("name")
    taken = {path.name for path in studio.project.runs.glob("*")}
    if isinstance(name, str) and len(name) <= LONGEST_ID and name.strip() and name not in taken:
        updates[form.name] = name
    return updates


def remembered(form: Form) -> tuple[list[gr.components.Component], str]:
    """(components, script): the script turns their values into what `from_browser` reads, without asking the app."""
    named = {"preset": form.preset, "name": form.name, **form.settings}
    script = f"(...values) => Object.fromEntries({json.dumps(list(named))}.map((name, number) => [name, values[number]]))"
    return list(named.values()), script


def stem(name: str) -> str:
    """A run's name without its number: "cats" of "cats-12"."""
    return name.rstrip("0123456789").rstrip("-")


def _filled(form: Form, config: TrainConfig) -> dict:
    return {form.settings[name]: value for name, value in asdict(config).items()}


def _fits(name: str, value: object) -> bool:
    wanted = INPUTS[name].type
    if isinstance(value, bool) != (wanted == "bool"):
        return False
    return isinstance(value, TYPES[wanted]) and (not isinstance(value, str) or len(value) <= LONGEST_ID)
