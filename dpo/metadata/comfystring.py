"""What ComfyUI's text nodes do to texts: join them, replace in them, cut and case them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from dpo.metadata.comfygraph import Node
from dpo.metadata.comfynames import NEGATIVE

if TYPE_CHECKING:
    from dpo.metadata.comfytext import Words

DELIMITERS = ("delimiter", "separator", "sep", "join_with")
NO_PART = {*DELIMITERS, "clean_whitespace", "linebreak_addition", "return_list", "inputcount", "mode", "action", "tidy_tags"}
SPELLED = {"newline": "\n", "space": " ", "comma": ",", "none": "", "comma space": ", "}
# A pattern from a file must not run for ever: at most one unbounded repetition, and none of a group.
UNBOUNDED = re.compile(r"(?<!\\)(?:\\\\)*(?:[*+]|\{\d*,\})")
OF_A_GROUP = re.compile(r"\)(?:[*+]|\{)|\\[1-9]|\(\?P=")
MAX_MATCHED = 5_000  # characters


def joined(node: Node, part: Callable[[str], Words | None]) -> Words | None:
    """The texts of a joining node in the order of its inputs' names; None without any."""
    inputs = node.inputs
    delimiter = next((value for name in DELIMITERS if isinstance(value := inputs.get(name), str)), "")
    delimiter = SPELLED.get(delimiter.lower(), delimiter).replace("\\n", "\n")
    if str(inputs.get("linebreak_addition")).lower() == "true":
        delimiter += "\n"
    names = sorted((name for name in inputs if name not in NO_PART), key=_in_counting_order)
    parts = [words for name in names if (words := part(name)) and words.text]
    if not parts:
        return None
    texts = [words.text for words in parts]
    if str(inputs.get("clean_whitespace")).lower() == "true":
        texts = [text.strip() for text in texts]
    doubt = next((words.doubt for words in parts if words.doubt), "")
    return parts[0]._replace(text=delimiter.join(texts), others=(), doubt=doubt)


def change_text(node: Node, words: Words, side: int) -> Words:
    """The text after a node that changes it; the same where the node is none of those."""
    inputs, kind, text = node.inputs, node.kind, words.text
    mode = str(inputs.get("mode", ""))
    if "regex_pattern" in inputs and "replace" in inputs:
        text, doubt = _replace_pattern(inputs, text)
        return words._replace(text=text, doubt=words.doubt or doubt)
    if "replace" in kind.lower():
        for name, found in inputs.items():
            if re.match(r"find\d?$", name) and isinstance(found, str) and found:
                replacement = inputs.get(name.replace("find", "replace"))
                if isinstance(replacement, str) and len(text) * (len(replacement) + 1) < 1_000_000:
                    text = text.replace(found, replacement)
    elif kind == "CaseConverter":
        cases = {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}
        text = cases.get(mode, str)(text)
    elif kind == "StringTrim":
        text = {"Left": text.lstrip, "Right": text.rstrip}.get(mode, text.strip)()
    elif (
        kind == "StringSubstring" and isinstance(start := inputs.get("start"), int) and isinstance(end := inputs.get("end"), int)
    ):
        text = text[start:end]
    elif kind.startswith("UnzipPrompt") and (match := re.match(r"\s*positive:(.*?)(?:negative:(.*))?$", text, re.DOTALL)):
        text = (match[2 if side == NEGATIVE else 1] or "").strip()
    return words if text == words.text else words._replace(text=text)


def _replace_pattern(inputs: dict, text: str) -> tuple[str, str]:
    pattern, replacement = inputs["regex_pattern"], inputs["replace"]
    doubt = "A pattern that changes the text was not applied."
    if not isinstance(pattern, str) or not isinstance(replacement, str) or len(text) > MAX_MATCHED or len(pattern) > 200:
        return text, doubt
    if len(UNBOUNDED.findall(pattern)) > 1 or OF_A_GROUP.search(pattern):
        return text, doubt
    flags = re.NOFLAG
    for name, flag in (("multiline", re.MULTILINE), ("dotall", re.DOTALL)):
        flags |= flag if inputs.get(name) is True else re.NOFLAG
    flags |= re.IGNORECASE if inputs.get("case_insensitive", True) is True else re.NOFLAG
    count = inputs.get("count")
    try:
        return re.sub(pattern, replacement, text, count=count if isinstance(count, int) and count > 0 else 0, flags=flags), ""
    except (re.error, IndexError, OverflowError):
        return text, doubt


def _in_counting_order(name: str) -> list:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
