"""The left column of Look: which adapters, how strong, what they paint and how. It only reads what is typed; dpo/compare.py says
what cannot be, before anything loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from dpo import StudioError
from dpo.compare import BASE, CompareError, LookRequest, Variant, read_prompts, run_adapters
from dpo.config_files import PRESETS
from dpo.demo.candidates import demo_prompts
from dpo.pairs import split_pairs
from dpo.runs import Run, list_runs
from dpo.sample_settings import SampleSettings
from dpo.samplers import sampler_names
from ui.parts import text_part
from ui.session import Session, Studio, chosen_run

PROMPTS_OFFERED = 4  # to begin with
PROMPTS_OF_THE_DEMO = 12
DEMO_SEED = 200  # of the prompts offered for the demo model
LONGEST_FILE = 1 << 20  # bytes of prompts
OWN_SAMPLER = ("the model's own", "")
NO_ADAPTER = "No adapter yet. Train a run first, or write the path of an adapter file."
NO_HELD_OUT = "No prompts are held out: choose the adapter of a run that has some, or take a list."


class Form(NamedTuple):
    """`held_out`, `file` and `lists` fill the prompts; `said` is how that went."""

    adapters: gr.Dropdown
    strengths: gr.Textbox
    prompts: gr.Textbox
    held_out: gr.Button
    file: gr.UploadButton
    lists: dict[str, gr.Button]  # the list's name -> its button
    said: gr.HTML
    seeds: gr.Textbox
    model: gr.Textbox
    sampler: gr.Dropdown
    steps: gr.Number
    guidance: gr.Number
    width: gr.Number
    height: gr.Number
    negative: gr.Textbox
    picture: gr.Image
    picture_strength: gr.Number
    image_format: gr.Dropdown
    compare: gr.Button
    problem: gr.HTML

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What `read_request` takes after the studio, in its order."""
        return [
            self.adapters, self.strengths, self.prompts, self.seeds, self.model, self.sampler, self.steps, self.guidance,
            self.width, self.height, self.negative, self.picture, self.picture_strength, self.image_format,
        ]  # fmt: skip


def create_form() -> Form:
    adapters = gr.Dropdown(
        [], value=[], label="Adapters", info="A run's adapter, one of its checkpoints, or the path of an adapter file.",
        multiselect=True, allow_custom_value=True, elem_id="adapter",
    )  # fmt: skip
    strengths = gr.Textbox(
        "1", label="Strength", info="0 is the base itself, 1 the adapter as trained. Several, such as 0.5, 1: all of them.",
        max_lines=1, elem_id="strength",
    )  # fmt: skip
    prompts = gr.Textbox("", label="Prompts", info="One a line.", lines=5, max_lines=12, elem_id="prompts")
    with gr.Row(elem_classes="from"):
        text_part("Take")
        held_out = gr.Button("held out", size="sm", elem_id="prompts-held-out")
        lists = {name: gr.Button(name, size="sm", elem_classes="prompt-list") for name in prompt_lists()}
        file = gr.UploadButton("a text file", file_types=[".txt"], size="sm", elem_id="prompts-file")
    said = text_part(elem_id="prompts-said")
    seeds = gr.Textbox("1, 2", label="Seeds", max_lines=1, elem_id="seeds")
    with gr.Accordion("More", open=False, elem_id="look-more"), gr.Column(elem_classes="fields"):
        model = gr.Textbox("demo", label="Model", info="The model the adapter was trained on.", max_lines=1)
        sampler = gr.Dropdown([OWN_SAMPLER], value="", label="Sampler", elem_id="look-sampler")
        steps = gr.Number(20, label="Sampling steps", info="More is slower and finer.")
        guidance = gr.Number(3.0, label="Guidance", info="How strictly the prompt is followed.")
        width = gr.Number(0, label="Width", info="Pixels. 0: the model's own.")
        height = gr.Number(0, label="Height", info="Pixels. 0: the model's own.")
        negative = gr.Textbox("", label="Negative prompt", lines=2, max_lines=4)
        picture = gr.Image(
            label="Picture to start from", type="filepath", sources=["upload", "clipboard"], height=190, elem_id="look-picture"
        )
        picture_strength = gr.Number(0.6, label="Change", info="Above 0, to 1: how much of the picture is painted over.")
        image_format = gr.Dropdown(["png", "jpeg", "webp"], value="png", label="Image files", elem_id="look-format")
    compare = gr.Button("Compare", variant="primary", elem_id="start-compare")
    problem = text_part(elem_id="compare-problem", tone="bad")
    return Form(
        adapters, strengths, prompts, held_out, file, lists, said, seeds, model, sampler, steps, guidance, width, height,
        negative, picture, picture_strength, image_format, compare, problem,
    )  # fmt: skip


# ---------------------------------------------------------------- what is typed


def read_request(
    studio: Studio, adapters: Sequence[str], strengths: str, prompts: str, seeds: str, model: str, sampler: str,
    steps: float | None, guidance: float | None, width: float | None, height: float | None, negative: str,
    picture: str | None, picture_strength: float | None, image_format: str,
) -> LookRequest:  # fmt: skip
    """What the form asks for. Raises CompareError for what cannot be read, PlaceError for what a shared page may not reach."""
    model = model.strip()
    studio.check_place(model)
    return LookRequest(
        model=model,
        variants=(BASE, *read_variants(studio, adapters or [], read_strengths(strengths))),
        prompts=tuple(read_lines(prompts)),
        seeds=tuple(read_seeds(seeds)),
        settings=SampleSettings(
            sampling_steps=_whole("Sampling steps", steps), guidance_scale=_number("Guidance", guidance),
            width=_whole("Width", width or 0), height=_whole("Height", height or 0),
            negative_prompt=negative.strip(), sampler=sampler or "",
        ),
        picture=Path(picture) if picture else None,
        picture_strength=_number("Change", picture_strength),
        image_format=image_format,
    )  # fmt: skip


def read_variants(studio: Studio, adapters: Sequence[str], strengths: Sequence[float]) -> list[Variant]:
    """Every adapter at every strength. `adapters`: what `adapter_choices` offers, or paths. Raises CompareError, PlaceError."""
    paths = [path.strip() for path in adapters if path.strip()]
    if not paths:
        raise CompareError("Choose an adapter first." if adapter_choices(studio) else NO_ADAPTER)
    for path in paths:
        studio.check_place(path, is_model=False)
    labels = {path: label for label, path in adapter_choices(studio)}
    names = [labels.get(path) or Path(path).stem for path in paths]
    # Two files may have one name: then their folders tell them apart.
    names = [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]
    return [
        Variant(f"{name} at {strength:g}", Path(path).expanduser(), strength)
        for name, path in zip(names, paths, strict=True)
        for strength in strengths
    ]


def read_lines(text: str) -> list[str]:
    """Prompts, one a line, each once, in order."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def read_seeds(text: str) -> list[int]:
    """Whole numbers between commas or spaces, each once, in order. Raises CompareError."""
    seeds: list[int] = []
    for word in text.replace(",", " ").split():
        if not (word.isascii() and word.isdigit() and int(word) < 2**32):
            raise CompareError(f"{word!r} is not a seed. Write whole numbers, such as 1, 2, 3.")
        if int(word) not in seeds:
            seeds.append(int(word))
    return seeds


def read_strengths(text: str) -> list[float]:
    """Numbers from 0 on between commas or spaces, each once, in order. Raises CompareError."""
    strengths: list[float] = []
    for word in text.replace(",", " ").split():
        try:
            strength = float(word)
        except ValueError:
            strength = -1.0
        if not 0 <= strength < float("inf"):
            raise CompareError(f"{word!r} is not a strength. Write numbers of 0 or more, such as 0.5, 1.")
        if strength not in strengths:
            strengths.append(strength)
    if not strengths:
        raise CompareError("There is no strength. Write at least one number, such as 1.")
    return strengths


def _whole(name: str, value: float | None) -> int:
    if value is None or int(value) != value:
        raise CompareError(f"{name} wants a whole number, such as 20.")
    return int(value)


def _number(name: str, value: float | None) -> float:
    if value is None:
        raise CompareError(f"{name} wants a number, such as 0.6.")
    return float(value)


# ---------------------------------------------------------------- what is offered


def adapter_choices(studio: Studio) -> list[tuple[str, str]]:
    """(label, path) of every run's adapters: the finished one, then those of its checkpoints."""
    return [(label, str(path)) for run in list_runs(studio.project.runs) for label, path in run_adapters(run)]


def usable_runs(studio: Studio) -> list[Run]:
    return [run for run in list_runs(studio.project.runs) if run.adapter.exists()]


def offered_run(studio: Studio, session: Session) -> Run | None:
    """The session's run if it has an adapter, else the newest that has one, a healthy one first."""
    usable = usable_runs(studio)
    shown = chosen_run(studio, session)
    if shown in usable and shown.name == session.run:
        return shown
    return min(usable, key=lambda run: run.status().state == "damaged", default=None)


def run_behind(studio: Studio, adapters: Sequence[str]) -> Run | None:
    """The project's run that made the first of the adapters which one of them made."""
    offered = {str(path): run for run in list_runs(studio.project.runs) for _, path in run_adapters(run)}
    return next((offered[adapter] for adapter in adapters or [] if adapter in offered), None)


def held_out_prompts(run: Run, most: int | None = None) -> list[str]:
    """Prompts that the run was not trained on; none if nothing was held out."""
    if run.config.model == "demo":
        trained = frozenset(item.prompt for item in run.items)
        return demo_prompts(most or PROMPTS_OF_THE_DEMO, DEMO_SEED, exclude=trained)
    _, held_out = split_pairs(run.items, run.config.validation_share)
    return list(dict.fromkeys(run.held_out or [item.prompt for item in held_out]))[:most]


def first_prompts(run: Run) -> str:
    """A few prompts to begin with: not trained on, where there are any."""
    trained = dict.fromkeys(item.prompt for item in run.items)
    return "\n".join(held_out_prompts(run, PROMPTS_OFFERED) or list(trained)[:PROMPTS_OFFERED])


def prompt_lists() -> dict[str, Path]:
    """The lists that come with the studio: a name and its file, one prompt a line."""
    return {path.stem.replace("-", " "): path for path in sorted((PRESETS / "prompts").glob("*.txt"))}


def read_prompt_file(path: str | Path) -> str:
    """The prompts of a text file, one a line. Raises CompareError."""
    path = Path(path)
    if path.stat().st_size > LONGEST_FILE:
        raise CompareError(f"{path.name} is larger than 1 MB. Take the prompts that matter.")
    prompts = read_prompts(path)
    if not prompts:
        raise CompareError(f"{path.name} holds no prompt. Write one a line.")
    return "\n".join(prompts)


def sampler_choices(studio: Studio, model: str) -> list[tuple[str, str]]:
    """The model's own, then those that fit it; the first alone for what is no model, which is said when Compare is pressed."""
    try:
        studio.check_place(model.strip())
        return [OWN_SAMPLER, *((name, name) for name in sampler_names(model.strip()))]
    except StudioError:
        return [OWN_SAMPLER]
