"""What a prompt says to a model, read as the people write it whose programs made the images: A1111, Forge, ComfyUI.

Training and sampling read a prompt the same way, both images of a pair, both sides of Compare and sample pictures: a family's
`encode_prompts` and `prompt_arguments` are all that asks, positive and negative prompts alike. Files and the page keep the
prompt as it was written.

    <lora:name:0.8>, <lyco:..>, <hypernet:..>   left out: they name a file, and say nothing to a text encoder
    embedding:name                              left out: a textual inversion, which is not at hand
    /* .. */, and in a prompt of several lines those that begin with # or //    left out: comments
    [from:to:when]  [to:when]  [from::when]     the one of the two that most steps saw, the first of equals: `when` is a share of
                                                the steps, or without a decimal point a step of A1111's 20
    [one|other]                                 the first: every step saw another one, in turn
    (words:1.3)  (words)  [words]               weights: x 1.3, x 1.1, / 1.1; nested ones multiply
    BREAK                                       a new window
    \\( \\) \\[ \\] \\\\                             the character itself
    AND, __wildcards__, {a|b}                   words like others: the programs resolve the last two before they draw

Brackets without a partner: one that opens is closed at the end, one that closes is a character. So no text is a mistake.

`parse_prompt` is for models that have CLIP alone (Stable Diffusion 1.x and 2.x, SDXL): weights are applied, and what is longer
than a window goes on in the next one (dpo/families/clip_windows.py). `plain_words` is for all others, which nobody weighs words
for: their words stay and the syntax goes, as far as it is one. There, brackets without a number are punctuation: "a sign (in
red)" stays as it is, "(in red:1.2)" and "((in red))" do not. BREAK is a comma.

Pure Python: the page counts with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

Section = list[tuple[str, float]]  # texts and their weights, in order


class Syntax(NamedTuple):
    """How many prompts hold tags, embeddings, brackets."""

    tags: int
    embeddings: int
    brackets: int


STEPS = 20  # A1111's default, for a `when` that is a number of steps
HEAVIEST = 10.0  # brackets without end would make a weight that is no number
DEEPEST = 25  # brackets inside brackets that count: 1.1 ** 25 is past the heaviest
ROUND = 1.1
SQUARE = 1 / 1.1

# Bounded, as prompts may be crafted.
_COMMENT = re.compile(r"/\*.{0,2000}?\*/", re.DOTALL)
_COMMENT_LINE = re.compile(r"^[ \t]*(#|//)[^\n]*(\n|\Z)", re.MULTILINE)
_TAG = re.compile(r"<\w{1,20}:[^<>]{1,400}>")
_EMBEDDING = re.compile(r"\bembedding:[^\s,:()\[\]<>|]+")
_SIGN = re.compile(r"\\.|[()\[\]:|]", re.DOTALL)
_PIECE = re.compile(r"\\.|\\|[(\[\])]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[^\\()\[\]:]+|:", re.DOTALL)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*")
_BREAK = re.compile(r"(?<!\s)\s*\bBREAK\b\s*")
_ESCAPED = re.compile(r"\\([()\[\]\\])")
_COMMAS = re.compile(r"(?<!\s)\s*,(?:\s*,)+")
_SPACES = re.compile(r"[ \t]{2,}")
_OPENED = re.compile(r"(?<!\\)[(\[]")


def parse_prompt(text: str) -> list[Section]:
    """What stands between one BREAK and the next: texts with their weights. A plain prompt is one text of weight 1, as it is.

    Weights as A1111 reads them; they stay within 10 of 0.
    """
    pieces: list[tuple[int, str]] = []  # the section, and a text without brackets
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    section = 0

    def weigh(start: int, factor: float) -> None:
        weights[start:] = [max(-HEAVIEST, min(HEAVIEST, weight * factor)) for weight in weights[start:]]

    for match in _PIECE.finditer(_settled(text)):
        piece = match[0]
        if piece in opened:
            opened[piece] += [len(pieces)] * (len(opened[piece]) < DEEPEST)
        elif piece == ")" and opened["("]:
            weigh(opened["("].pop(), ROUND)
        elif piece == "]" and opened["["]:
            weigh(opened["["].pop(), SQUARE)
        elif match[1] and opened["("]:
            weigh(opened["("].pop(), float(match[1]))
        else:
            parts = [piece[1:]] if piece[0] == "\\" else _BREAK.split(piece)
            pieces += [(number, part) for number, part in enumerate(parts, section) if part]
            weights += [1.0] * (len(pieces) - len(weights))
            section += len(parts) - 1
    for kind, factor in (("(", ROUND), ("[", SQUARE)):
        for start in opened[kind]:
            weigh(start, factor)

    sections: list[Section] = [[] for _ in range(section + 1)]
    for (number, weight), same in groupby(zip(pieces, weights, strict=True), key=lambda found: (found[0][0], found[1])):
        sections[number].append(("".join(part for (_, part), _ in same), weight))
    return sections


def plain_words(text: str) -> str:
    """The words of a prompt, for a model without weights. One without any syntax stays as it is."""
    settled = _settled(text)
    words = _BREAK.sub(", ", _ESCAPED.sub(r"\1", _without(settled, _weighing(settled))))
    if words == text:
        return text
    return _SPACES.sub(" ", _COMMAS.sub(",", words)).strip(" ,")


def count_syntax(prompts: Iterable[str]) -> Syntax:
    """How many of them hold what."""
    prompts = set(prompts)
    return Syntax(*(sum(bool(sign.search(prompt)) for prompt in prompts) for sign in (_TAG, _EMBEDDING, _OPENED)))


def _settled(text: str) -> str:
    """Without comments and tags, and with every choice that changes from step to step made."""
    text = _COMMENT.sub("", text)
    if "\n" in text:
        text = _COMMENT_LINE.sub("", text)
    text = _EMBEDDING.sub("", _TAG.sub("", text))
    return _without(text, _unseen(text)) if "[" in text else text


def _unseen(text: str) -> list[tuple[int, int]]:
    """Of [from:to:when] and [one|other]: the stretches (start, end) that are left out, brackets among them."""
    found = []
    opened: list[tuple[str, int, list[int]]] = []  # bracket, where, and where its separators are
    waiting = {"(": 0, "[": 0}
    for match in _SIGN.finditer(text):
        sign, place = match[0], match.start()
        if sign in waiting:
            opened.append((sign, place, []))
            waiting[sign] += 1
        elif sign in ":|" and opened and opened[-1][0] == "[":
            opened[-1][2].append(place)
        elif sign in ")]" and waiting[kind := "(" if sign == ")" else "["]:
            while True:
                bracket, start, separators = opened.pop()
                waiting[bracket] -= 1
                if bracket == kind:  # others have no partner
                    break
            if kind == "[" and (kept := _seen(text, [start, *separators, place])):
                found += [(start, kept[0]), (kept[1], place + 1)]
    return found


def _seen(text: str, marks: list[int]) -> tuple[int, int] | None:
    """Which stretch of a square bracket most steps saw. marks: the places of `[`, of each separator at its level, of `]`."""
    parts = list(zip([mark + 1 for mark in marks], marks[1:], strict=False))
    if any(text[mark] == "|" for mark in marks[1:-1]):
        first_bar = next(number for number, mark in enumerate(marks) if text[mark] == "|")
        return parts[0][0], marks[first_bar]
    when = text[slice(*parts[-1])]
    if len(parts) not in (2, 3) or not _NUMBER.fullmatch(when):
        return None
    share = float(when) if "." in when else float(when) / STEPS
    if share < 0.5:
        return parts[-2]
    return parts[0] if len(parts) == 3 else (parts[0][0], parts[0][0])


def _weighing(text: str) -> list[tuple[int, int]]:
    """The stretches that say a weight: (..:1.2) without the words, and brackets right inside brackets, ((..))."""
    found, opened = [], []
    closed: dict[int, int] = {}  # opening bracket -> closing one
    sign, place = "", 0
    for match in _SIGN.finditer(text):
        before, colon = sign, place
        sign, place = match[0], match.start()
        if sign == "(":
            opened.append(place)
        elif sign == ")" and opened:
            start = opened.pop()
            closed[start] = place
            if before == ":" and _NUMBER.fullmatch(text, colon + 1, place):
                found += [(start, start + 1), (colon, place + 1)]
            elif closed.get(start + 1) == place - 1:
                found += [(start, start + 2), (place - 1, place + 1)]
    return found


def _without(text: str, stretches: list[tuple[int, int]]) -> str:
    kept, done = [], 0
    for start, end in sorted(stretches):
        if start > done:
            kept.append(text[done:start])
        done = max(done, end)
    return "".join([*kept, text[done:]])
