"""The left column of the Train tab: one input per field of TrainConfig, made from the field's own label, help and choices.

The basics stand open; every other section is a folded group whose name says what in it is not at its default. How the form is
filled (presets, files, another run, the browser's memory): train_fill.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, asdict, fields, replace
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.checks import check_training
from dpo.config import SECTIONS, ConfigError, TrainConfig
from dpo.config_files import Preset, preset_names, read_preset
from dpo.footprints import find_device, fit_line
from dpo.foreign_models import foreign_models
from dpo.menu import LOSSES
from dpo.models import describe_model, pipeline_name
from dpo.runs import MINIMUM_PAIRS, list_runs, suggest_run_name
from dpo.training import items_for
from dpo.values import check_value
from ui.parts import text_part
from ui.rights import open_to
from ui.session import Studio
from ui.train_parts import list_part
from ui.train_probe import Probe, create_probe
from ui.train_words import data_line, estimate_line, group_label, loss_words, prompts_line

INPUTS = {field.name: field for field in fields(TrainConfig)}
NO_ADAPTER = {
    "starting_adapter": ("none, start from the base model", ""),
    "base_adapter": ("none", ""),
    "reference_adapter": ("none, where training starts", ""),
}
FROM_PAIRS = {"rater": "everyone", "source": "all", "round": "all"}  # filters: the pairs say what there is to choose
FILTERS = ("max_pairs", "min_confidence", *FROM_PAIRS)
# Settings that name a place; whether it is a model's.
PLACES = {"model": True, "components": True, "base_adapter": False, "starting_adapter": False, "reference_adapter": False}


class Form(NamedTuple):
    """`settings` has one input per TrainConfig field, by the field's name; `groups` the folded sections, by theirs."""

    settings: dict[str, gr.components.Component]
    groups: dict[str, gr.Accordion]
    about_model: gr.HTML
    about_loss: gr.HTML
    preset: gr.Dropdown
    file: gr.UploadButton
    about_preset: gr.HTML
    why: gr.HTML
    notes: gr.HTML
    pairs: gr.HTML
    warnings: gr.HTML
    review: gr.Button
    probe: Probe
    name: gr.Textbox
    train: gr.Button
    problems: gr.HTML
    fits: gr.HTML
    estimate: gr.HTML

    def read(self, values: dict) -> dict[str, object]:
        """The settings among the values that gradio hands a handler."""
        return {name: values[component] for name, component in self.settings.items()}

    @property
    def described(self) -> list[gr.components.Component]:
        """What stands beside the settings and follows them: see `about` and `given`."""
        offered = [self.settings[name] for name in (*NO_ADAPTER, *FROM_PAIRS)]
        said = [self.about_model, self.about_loss, self.pairs, self.warnings, self.fits, self.estimate]
        return [*said, *self.groups.values(), *offered]


def create_form(studio: Studio) -> Form:
    names = preset_names()
    first = read_preset(names[0])
    start = first.config
    settings: dict[str, gr.components.Component] = {}
    groups: dict[str, gr.Accordion] = {}

    settings["model"] = gr.Dropdown(
        ["demo"], value=start.model, label=INPUTS["model"].metadata["label"], allow_custom_value=True, elem_id="model"
    )
    about_model = text_part(elem_id="about-model")
    with gr.Row(elem_classes="preset-row"):
        preset = gr.Dropdown(names, value=names[0], label="Preset", elem_id="preset")
        file = gr.UploadButton("Import settings", file_types=[".json"], size="sm", elem_id="import-settings")
    about_preset = text_part(first.about, elem_id="about-preset")
    why = list_part("preset-why", reasons(first), folded="What it sets, and why")
    notes = list_part("import-notes")
    pairs = text_part(elem_id="pairs-line")
    review = gr.Button("Review pairs", size="sm", elem_id="to-review")
    with gr.Column(elem_classes="fields"):
        for field in _fields("Basics"):
            settings[field.name] = _setting(field, getattr(start, field.name))
            if field.name == "beta":
                probe = create_probe()
    name = gr.Textbox(
        open_to("viewer")(lambda: suggest_run_name(studio.project.runs, start.model)),  # every page asks for it
        label="Run name", elem_id="run-name", max_lines=1,
    )  # fmt: skip
    warnings = list_part("train-warnings")
    train = gr.Button("Train", variant="primary", elem_id="start-training")
    problems = list_part("train-problem")
    fits = text_part(elem_id="fits")
    estimate = text_part(elem_id="estimate")
    with gr.Column(elem_classes="groups"):
        for section in SECTIONS[1:]:
            groups[section] = gr.Accordion(section, open=False, elem_id=f"section-{section.lower().replace(' ', '-')}")
            with groups[section], gr.Column(elem_classes="fields"):
                for field in _fields(section):
                    if field.name not in settings:
                        settings[field.name] = _setting(field, getattr(start, field.name))
                    if field.name == "loss":
                        about_loss = list_part("about-loss")
    return Form(
        {name: settings[name] for name in INPUTS}, groups, about_model, about_loss, preset, file, about_preset, why, notes,
        pairs, warnings, review, probe, name, train, problems, fits, estimate,
    )  # fmt: skip


def reasons(preset: Preset) -> list[dict[str, str]]:
    """What of a preset's settings is not at the default, each with its reason."""
    return [
        {"text": f"{INPUTS[name].metadata['label']}: {_shown(value)}", "advice": preset.why[name], "tone": "calm"}
        for name, value in asdict(preset.config).items()
        if value != INPUTS[name].default
    ]


def read_config(values: dict[str, object]) -> TrainConfig:
    """The settings as typed. Raises ConfigError that names each field, a line for each that cannot be."""
    typed = {name: _typed(INPUTS[name], value) for name, value in values.items()}
    problems = []
    for name, value in typed.items():
        try:
            check_value(INPUTS[name], value)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return TrainConfig(**{name: float(value) if INPUTS[name].type == "float" else value for name, value in typed.items()})


def check_places(studio: Studio, config: TrainConfig) -> None:
    """Raises PlaceError if others may be at the page and a setting names a place outside the project."""
    for name, is_model in PLACES.items():
        studio.check_place(getattr(config, name), is_model=is_model)


def about(studio: Studio, form: Form, values: dict[str, object]) -> dict:
    """What the form says of what is typed: the model, the loss, and what in each group is not at its default."""
    typed = {name: _typed(INPUTS[name], value) for name, value in values.items()}
    return {
        form.about_model: gr.HTML(**_about_model(studio, typed)),
        form.about_loss: gr.HTML(lines=loss_words(typed["loss"])),
        **{group: gr.Accordion(label=group_label(section, typed)) for section, group in form.groups.items()},
    }


def given(studio: Studio, form: Form, values: dict[str, object]) -> dict:
    """What a run would learn from with these settings, what speaks against it, and what there is to choose from."""
    try:
        config = read_config(values)
        check_places(studio, config)
    except StudioError:  # said when Train is pressed; until then someone is typing
        return {form.warnings: gr.HTML(lines=[]), form.fits: gr.HTML(text=""), form.estimate: gr.HTML(text="")}
    nothing_left_out = {name: INPUTS[name].default for name in FILTERS}
    everything, items = items_for(studio.project, replace(config, **nothing_left_out)), items_for(studio.project, config)
    lines = []
    if len(items) >= MINIMUM_PAIRS:  # else the line itself says what is missing
        try:
            warnings = check_training(config, items) + foreign_models(studio.project, config, items, hashes=False)
            lines = [{"text": warning, "tone": "warn"} for warning in warnings]
        except StudioError as error:
            lines = bad_lines(error)
    line = gr.HTML(text=f"{data_line(everything, items, config)} {prompts_line(items)}".strip())
    return {
        form.pairs: line,
        form.warnings: gr.HTML(lines=lines),
        form.fits: gr.HTML(**_fits(studio, config)),
        form.estimate: gr.HTML(text=estimate_line(config, len(items), list_runs(studio.project.runs)), tone="dim"),
        **_offered(studio, form, everything),
    }


def bad_lines(error: StudioError) -> list[dict[str, str]]:
    """A mistake's sentences, one a line."""
    return [{"text": line, "tone": "bad"} for line in str(error).splitlines() if line.strip()]


def _offered(studio: Studio, form: Form, items: Iterable) -> dict:
    """What the runs and the pairs give to choose from, for the inputs that offer it."""
    adapters = [(run.name, str(run.adapter)) for run in list_runs(studio.project.runs) if run.adapter.exists()]
    updates = {form.settings[name]: gr.Dropdown(choices=[none, *adapters]) for name, none in NO_ADAPTER.items()}
    for name, every in FROM_PAIRS.items():
        found = sorted({getattr(item, name) for item in items} - {""})
        updates[form.settings[name]] = gr.Dropdown(choices=[(every, ""), *found])
    return updates


def _fields(section: str) -> list[Field]:
    return [field for field in INPUTS.values() if field.metadata["section"] == section]


def _setting(field: Field, value) -> gr.components.Component:
    metadata = field.metadata
    about = {"label": metadata["label"], "info": metadata["help"], "elem_id": f"setting-{field.name}"}
    if field.type == "bool":
        return gr.Checkbox(value, **about)
    if metadata["choices"]:
        return gr.Dropdown(list(metadata["choices"]), value=value, **about)
    if field.name == "loss":
        return gr.Dropdown(list(LOSSES), value=value, allow_custom_value=True, **about)
    if field.name in NO_ADAPTER or field.name in FROM_PAIRS:
        nothing = NO_ADAPTER.get(field.name) or (FROM_PAIRS[field.name], "")
        return gr.Dropdown([nothing], value=value, allow_custom_value=True, **about)
    if field.type == "str":
        return gr.Textbox(value, max_lines=1, **about)
    # Limits are TrainConfig's job: gradio's own message ("Value 0 is less than minimum value 1e-06.") does not say which
    # field it means.
    return gr.Number(value, **about)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _typed(field: Field, value):
    """Gradio hands over 1 or 1.0 as it likes. A whole number goes to a whole-number field as such, any other is refused there."""
    if field.type == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    if field.type == "str":
        return (value or "").strip()
    return value


def _fits(studio: Studio, config: TrainConfig) -> dict[str, str]:
    try:
        studio.check_place(config.model)
        text, fits = fit_line(config, pipeline_name(config.model), find_device())
    except StudioError:  # said beside the model
        return {"text": ""}
    return {"text": text, "tone": "dim" if fits else "warn"}


def _about_model(studio: Studio, typed: dict[str, object]) -> dict[str, str]:
    try:
        for name in ("model", "components"):
            studio.check_place(typed[name])
        return {"text": describe_model(typed["model"], typed["prediction_type"], typed["components"]), "tone": "dim"}
    except StudioError as error:
        return {"text": str(error), "tone": "bad"}
