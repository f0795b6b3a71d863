"""Which words a node of a ComfyUI graph stands for: from conditioning to encoders, from encoders to texts, through the nodes
that join, replace, choose and show texts.
"""

from __future__ import annotations

from typing import NamedTuple

from dpo.metadata.comfygraph import Node, source_of
from dpo.metadata.comfynames import (
    BUNDLE,
    CONDITIONING,
    JOIN,
    LANGUAGE_MODEL,
    NO_SENTENCE,
    NO_WORDS,
    SHOW,
    TEXT,
    role_of,
    traits_of,
)
from dpo.metadata.comfystring import change_text, joined
from dpo.metadata.comfywalk import Walk, side_of_slot
from dpo.metadata.comfywidgets import is_file, is_sentence

REWRITTEN = "A language model wrote the prompt from this text; its words are not in the file."
STYLED = "A style added words to the prompt that are not in the file."
UNNAMED = "It was taken from a node of an unknown kind."
SYSTEM_END = "<Prompt Start>"  # Lumina 2: before it stands an instruction to its encoder
MAX_DEPTH = 80  # nodes on the way to one text; more is no prompt, and would exhaust Python's stack
MAX_TEXT = 100_000  # characters; joins of joins grow without end


class Words(NamedTuple):
    """A text, what else may pass for it, and why it may not be what it seems ("" = no doubt)."""

    text: str
    others: tuple[str, ...] = ()
    doubt: str = ""


class Reader:
    """Asks the nodes of one walk for their words. Every (node, side) is asked once."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self._known: dict[tuple, tuple[Words, ...]] = {}
        self._displays: dict[str, list[str]] = {}  # node -> those that show what it gives out
        for key in walk.nodes_with(SHOW):
            if len(wires := walk.wires[key]) == 1:
                self._displays.setdefault(wires[0][1], []).append(key)

    def words(self, key: str, side: int, depth: int = 0) -> tuple[Words, ...]:
        """The texts that a node's `side` (POSITIVE or NEGATIVE) stands for. () = nothing was said; an empty text was said
        where its `text` is empty."""
        known = self._known.get((key, side))
        if known is not None:
            return known
        if depth > MAX_DEPTH or not self.walk.visit():
            return ()
        self._known[key, side] = ()  # on a cycle nothing is said
        found = self._ask(key, self.walk.graph[key], side, depth)
        if key in self._displays and (not found or found[0].doubt):
            shown = [_text_at_run_time(self.walk.graph[display]) for display in self._displays[key]]
            if text := next(filter(None, reversed(shown)), ""):
                found = (Words(text, tuple(words.text for words in found)),)
        self._known[key, side] = found
        return found

    def input_words(self, key: str, name: str, side: int, depth: int = 0) -> tuple[Words, ...]:
        node = self.walk.graph[key]
        value = node.inputs[name]
        if isinstance(value, str):
            return (Words(value[:MAX_TEXT]),)
        if isinstance(value, list) and (source := source_of(value)) and source[0] in self.walk.graph:
            if not role_of(name) & BUNDLE:
                side = side_of_slot(self.walk, *source, side)
            return self.words(source[0], side, depth + 1)
        return ()

    def _follow(self, key: str, names: list[str], side: int, depth: int) -> tuple[Words, ...]:
        found: dict[str, Words] = {}
        for name in names:
            for words in self.input_words(key, name, side, depth):
                found.setdefault(words.text, words)
        return tuple(found.values())

    def _ask(self, key: str, node: Node, side: int, depth: int) -> tuple[Words, ...]:
        inputs, kind = node.inputs, node.kind
        if "ZeroOut" in kind:
            return ()
        if names := [name for name in inputs if role_of(name) & side]:
            return self._of_side(key, node, names, side, depth)
        wires = self.walk.wires[key]
        if names := [name for name, _, _, role in wires if role & CONDITIONING]:
            return self._follow(key, names, side, depth)  # it changes conditioning; a text of its own is a label or a mask's name
        bundles = [name for name, _, _, role in wires if role & BUNDLE]
        for name in sorted(bundles, key=lambda name: "refine" in name):
            if found := self.input_words(key, name, side, depth):
                return found
        if bundles and not _has_text(node):
            return ()
        if resolved := _text_at_run_time(node):
            template = inputs.get("wildcard_text")
            return (Words(resolved, (template,) if isinstance(template, str) and template != resolved else ()),)
        traits = traits_of(kind)
        if traits & JOIN:
            return self._joined(key, node, side, depth)
        if traits & LANGUAGE_MODEL:
            return tuple(words._replace(doubt=REWRITTEN) for words in self._longest(key, node, side, depth) if words.text.strip())
        found = self._longest(key, node, side, depth)
        found = found or self._of_any_wire(key, side, depth) or _sentence_of(node)
        return tuple(change_text(node, words, side) for words in found)

    def _of_side(self, key: str, node: Node, names: list[str], side: int, depth: int) -> tuple[Words, ...]:
        """Numbered inputs are conditionings that are combined; of the texts for several encoders one is the sentence."""
        wires = {name for name, *_ in self.walk.wires[key]}
        if wired := [name for name in names if name in wires]:
            names = wired
        if wired and (len(names) == 1 or names[-1][-1] not in "glr"):
            return self._follow(key, names, side, depth)
        found = _longest_of([words for name in names for words in self.input_words(key, name, side, depth)])
        if "tyle" in node.kind and node.inputs.get("style", "base") not in ("base", "None", "none", "No Style"):
            found = tuple(words._replace(doubt=words.doubt or STYLED) for words in found)
        return found

    def _longest(self, key: str, node: Node, side: int, depth: int) -> tuple[Words, ...]:
        """An encoder with several texts (SDXL, Flux, SD3): mostly equal; else the longest is the sentence, not the tags."""
        names = [name for name in node.inputs if role_of(name) & TEXT]
        if "tags" in names:  # of music
            names.remove("lyrics") if "lyrics" in names else None
        return _longest_of([words for name in names for words in self.input_words(key, name, side, depth)])

    def _joined(self, key: str, node: Node, side: int, depth: int) -> tuple[Words, ...]:
        def part(name: str) -> Words | None:
            return next(iter(self.input_words(key, name, side, depth)), None)

        found = joined(node, part)
        return (Words(found.text[:MAX_TEXT], found.others, found.doubt),) if found else ()

    def _of_any_wire(self, key: str, side: int, depth: int) -> tuple[Words, ...]:
        for name, _, _, role in self.walk.wires[key]:
            if not role & NO_WORDS and (found := self.input_words(key, name, side, depth)):
                return found
        return ()


def _sentence_of(node: Node) -> tuple[Words, ...]:
    """Of a node that is asked for words and has no input that is called a text: the longest that reads like one."""
    texts = [value for name, value in node.inputs.items() if isinstance(value, str) and not role_of(name) & NO_SENTENCE]
    found = max((text[:MAX_TEXT] for text in texts if is_sentence(text) and not is_file(text)), key=len, default="")
    return (Words(found, (), UNNAMED),) if found else ()


def merged(found: tuple[Words, ...]) -> Words:
    """Combined conditionings, as one text."""
    texts = list(dict.fromkeys(words.text.strip() for words in found if words.text.strip()))
    others = [other.strip() for words in found for other in words.others]
    others += [text.split(SYSTEM_END, 1)[1].strip() for text in texts if SYSTEM_END in text]
    doubt = next((words.doubt for words in found if words.doubt), "")
    return Words("\n".join(texts), tuple(dict.fromkeys(other for other in others if other and other not in texts)), doubt)


def _has_text(node: Node) -> bool:
    return any(role_of(name) & TEXT for name in node.inputs)


def _longest_of(found: list[Words]) -> tuple[Words, ...]:
    if len(found) < 2:
        return tuple(found)
    ranked = sorted(found, key=lambda words: -len(words.text.strip()))
    best = ranked[0]
    others = [words.text for words in ranked[1:] if words.text.strip() and words.text.strip() != best.text.strip()]
    return (best._replace(others=tuple(dict.fromkeys((*best.others, *others)))),)


def _text_at_run_time(node: Node) -> str:
    """What a wildcard, string function or display node held when the image was made, if stored: better than its template."""
    names = ["populated_text", "result", *(["text_0", "text2"] if traits_of(node.kind) & SHOW else [])]
    return next((text for name in names if isinstance(text := node.inputs.get(name), str) and text.strip()), "")
