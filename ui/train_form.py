"""The left column of the Train tab: one input per field of TrainConfig, made from the field's own label, help and choices."""

from __future__ import annotations

from dataclasses import Field, asdict, fields
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.config import TrainConfig, load_preset, preset_names
from dpo.models import describe_model
from dpo.runs import suggest_run_name
from ui.parts import text_part
from ui.session import Studio

INPUTS = {field.name: field for field in fields(TrainConfig)}
NO_ADAPTER = ("none, start from the base model", "")


class Form(NamedTuple):
    """`settings` has one input per TrainConfig field, by the field's name."""

    settings: dict[str, gr.components.Component]
    preset: gr.Dropdown
    pairs: gr.HTML
    name: gr.Textbox
    train: gr.Button
    problem: gr.HTML
    estimate: gr.HTML

    @property
    def remembered(self) -> list[gr.components.Component]:
        """What a reload brings back, in a fixed order."""
        return [self.preset, self.name, *self.settings.values()]


def create_form(studio: Studio) -> Form:
    names = preset_names()
    start = load_preset(names[0]) if names else TrainConfig()
    settings: dict[str, gr.components.Component] = {}

    def add(field: Field) -> None:
        settings[field.name] = _setting(field, getattr(start, field.name))

    settings["model"] = gr.Dropdown(
        ["demo"], value=start.model, label=INPUTS["model"].metadata["label"], allow_custom_value=True, elem_id="model"
    )
    about_model = text_part(_about(studio, start.model)["text"], elem_id="about-model")
    preset = gr.Dropdown(names, value=names[0] if names else None, label="Preset", elem_id="preset", visible=len(names) > 1)
    pairs = text_part(elem_id="pairs-line")
    with gr.Column(elem_classes="fields"):
        for field in INPUTS.values():
            if field.metadata["main"]:
                add(field)
    with gr.Accordion("More", open=False, elem_id="more"), gr.Column(elem_classes="fields"):
        label, help = (INPUTS["starting_adapter"].metadata[key] for key in ("label", "help"))
        settings["starting_adapter"] = gr.Dropdown([NO_ADAPTER], value="", label=label, info=help, allow_custom_value=True)
        for field in INPUTS.values():
            if field.name not in settings:
                add(field)
    name = gr.Textbox(
        lambda: suggest_run_name(studio.project.runs, start.model), label="Run name", elem_id="run-name", max_lines=1
    )
    train = gr.Button("Train", variant="primary", elem_id="start-training")
    problem = text_part(elem_id="train-problem", tone="bad")
    estimate = text_part(elem_id="estimate")

    settings["model"].change(
        lambda model: gr.HTML(**_about(studio, model)), settings["model"], about_model, show_progress="hidden"
    )
    preset.input(_preset_updates, preset, [problem, *settings.values()], show_progress="hidden")
    return Form(settings, preset, pairs, name, train, problem, estimate)


def read_config(values: dict[str, object]) -> TrainConfig:
    """The settings as typed. Raises ConfigError, naming the field."""
    return TrainConfig(**{name: _typed(INPUTS[name], value) for name, value in values.items()})


def _setting(field: Field, value) -> gr.components.Component:
    about = field.metadata
    if about["choices"]:
        return gr.Dropdown(list(about["choices"]), value=value, label=about["label"], info=about["help"])
    # Limits are TrainConfig's job: gradio's own message ("Value 0 is less than minimum value 1e-06.") does not say which
    # field it means.
    return gr.Number(value, label=about["label"], info=about["help"], elem_id=f"setting-{field.name}")


def _typed(field: Field, value):
    """Gradio hands over every number as a float; a whole one goes to a whole-number field as such, any other is refused."""
    if field.type == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    if field.type == "str":
        return (value or "").strip()
    return value


def _about(studio: Studio, model: str | None) -> dict[str, str]:
    try:
        studio.check_place(model or "")
        return {"text": describe_model(model or ""), "tone": "dim"}
    except StudioError as error:
        return {"text": str(error), "tone": "bad"}


def _preset_updates(name: str) -> list:
    try:
        config = load_preset(name)
    except StudioError as error:
        return [gr.HTML(text=str(error), tone="bad"), *[gr.skip()] * len(INPUTS)]
    return [gr.HTML(text=""), *asdict(config).values()]
