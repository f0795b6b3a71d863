"""The result of a blind test to keep and to show: a picture, drawn by matplotlib, and the same as JSON.

Prompts are other people's text: none of it is read as mathematics, which matplotlib does with everything between dollar signs.
"""

from __future__ import annotations

import json
import textwrap
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dpo import StudioError
from dpo.blind import QUESTIONS
from dpo.disk import write_text
from dpo.outcomes import Outcome, drawn_by_lot
from dpo.verdict import GOAL

if TYPE_CHECKING:
    from dpo.project import Project

PICTURE_PAIRS = 6
COLUMNS = 2
_INCHES, _DPI = (9.6, 12.0), 125  # 1200 x 1500 pixels
_INK, _DIM, _GROUND, _ACCENT = "#e6e6e4", "#a3a39f", "#131312", "#e0992e"


class CardError(StudioError):
    """A result that cannot be written down."""


def write_card(project: Project, outcome: Outcome, headline: str) -> tuple[Path, Path]:
    """(picture, JSON) in the project's exports, made anew. `headline` is the verdict in words.

    Raises CardError before anybody voted, and if the disk refuses.
    """
    if not outcome.prompts:
        raise CardError(f"Nobody has voted on {outcome.test.name} yet. Vote first; the result is shown whenever you like.")
    stem = project.exports / f"blind-{outcome.test.name}-{outcome.question}"
    picture, record = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.json")
    try:
        _draw(outcome, headline, picture)
        write_text(record, json.dumps(describe_outcome(outcome), indent=1, ensure_ascii=False))
    except OSError as error:
        raise CardError(f"{picture.parent} cannot be written: {error.strerror}. Free some space, then try again.") from error
    return picture, record


def describe_outcome(outcome: Outcome) -> dict:
    """The result as plain values; rates are shares of the decisive votes, from 0 to 1."""
    test, verdict = outcome.test, outcome.verdict
    low, high = verdict.interval
    by_prompt = dict(zip(("win_rate", "low", "high"), outcome.by_prompt or (None, None, None), strict=True))
    return {
        "test": test.name, "question": QUESTIONS[outcome.question], "model": test.model, "run": test.run,
        "strength": test.strength, "pairs": test.pairs, "steps": test.steps,
        "sampling_steps": test.sampling_steps, "guidance_scale": test.guidance_scale,
        "made": datetime.fromtimestamp(test.made).isoformat(timespec="seconds"),
        "comparisons": len(test.items), "wins": verdict.wins, "votes": verdict.votes, "ties": verdict.ties,
        "win_rate": verdict.rate, "low": low, "high": high,
        "interval": "95%, at whatever vote one stops",
        "evidence": verdict.evidence, "decided_at_evidence": GOAL,
        "decided_after": verdict.decided_after, "winner": verdict.winner,
        "by_prompt": by_prompt | {"interval": "95%, prompts drawn again; a tie counts for half"},
        "prompts": [vars(line) for line in outcome.prompts],
        "voters": [vars(line) for line in outcome.voters],
    }  # fmt: skip


def _draw(outcome: Outcome, headline: str, path: Path) -> None:
    from matplotlib.figure import Figure

    test, verdict = outcome.test, outcome.verdict
    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor=_GROUND)

    def write(x: float, y: float, text: str, size: float, colour: str = _INK, **more) -> None:
        figure.text(x, y, text, fontsize=size, color=colour, va="top", parse_math=False, **more)

    write(0.05, 0.975, f"{test.run or Path(test.adapter).stem}: {QUESTIONS[outcome.question]}", 12, _DIM)
    write(0.05, 0.945, "no decisive vote yet" if verdict.rate is None else f"{verdict.rate:.0%} for the adapter", 30)
    write(0.05, 0.885, textwrap.fill(headline, 112), 11, _DIM)
    _draw_interval(figure, outcome)
    facts = [f"{verdict.votes:,} votes, {verdict.ties:,} ties", f"{len(outcome.prompts):,} prompts"]
    facts += [f"{len(outcome.voters)} people" if len(outcome.voters) > 1 else "1 person"]
    facts += [f"trained on {test.pairs:,} pairs in {test.steps:,} steps"] if test.pairs else []
    write(0.05, 0.765, "  ·  ".join([*facts, f"base {Path(test.model).name}", f"strength {test.strength:g}"]), 10, _DIM)
    _draw_pairs(figure, outcome, write)
    figure.savefig(path, facecolor=_GROUND)


def _draw_interval(figure, outcome: Outcome) -> None:
    low, high = outcome.verdict.interval
    axes = figure.add_axes((0.05, 0.795, 0.9, 0.035), facecolor=_GROUND)
    axes.set(xlim=(0, 1), ylim=(0, 1), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_xticklabels(["base", "", "no difference", "", "adapter"], color=_DIM, fontsize=9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.axhline(0.5, color="#3a3a38", linewidth=1)
    axes.axvline(0.5, color=_DIM, linewidth=1)
    axes.plot([low, high], [0.5, 0.5], color=_ACCENT, linewidth=6, solid_capstyle="butt")
    if outcome.verdict.rate is not None:
        axes.plot([outcome.verdict.rate], [0.5], "o", color=_INK, markersize=9, clip_on=False)


def _draw_pairs(figure, outcome: Outcome, write) -> None:
    """Base at the left, adapter at the right; what most people preferred has an edge."""
    from PIL import Image

    items = drawn_by_lot(outcome, PICTURE_PAIRS)
    rows = PICTURE_PAIRS // COLUMNS
    width, height, top = 0.435, 0.225, 0.735
    for place, item in enumerate(items):
        left = 0.05 + (place % COLUMNS) * (width + 0.03)
        bottom = top - (place // COLUMNS + 1) * (0.70 / rows) + 0.012
        chosen, _ = outcome.decisions[item.number]
        for number, side in enumerate(("base", "adapter")):
            axes = figure.add_axes((left + number * width / 2, bottom, width / 2 - 0.006, height - 0.03))
            with Image.open(outcome.test.image(item, side)) as image:
                axes.imshow(image.convert("RGB"), interpolation="nearest" if max(image.size) <= 128 else "antialiased")
            axes.set(xticks=[], yticks=[], anchor="N")
            for spine in axes.spines.values():
                spine.set(color=_ACCENT if side == chosen else _GROUND, linewidth=3)
        write(left, bottom + height - 0.014, textwrap.shorten(item.prompt, 62, placeholder=" ..."), 9)
    write(0.05, 0.022, "Base left, adapter right; the edge is what was preferred. Pairs drawn by lot.", 9, _DIM)
