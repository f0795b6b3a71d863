"""What the review asks of the app: pages of its sheet, filtered and sorted here, what health found, and what is done to pairs.

A pair is known to the page by its group and its two image keys, whichever of them is the chosen one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dpo import StudioError
from dpo.config import TrainConfig
from dpo.health import Finding, check_health
from dpo.picks import PickedPair
from dpo.runs import list_runs
from ui.images import image_url
from ui.rights import OWNER, open_to
from ui.session import Studio, limit, token_login
from ui.words import ago, count, shown_prompt, source_words

MOST_ROWS, MOST_OPERATIONS = 200, 200  # in one request
ORDERS = ("newest", "least", "most")  # newest first, least confident first, most confident first
STATES = ("used", "proposed", "deleted", "gone", "needs_reject")


class Wanted(NamedTuple):
    """What a page wants to see. None: any. `state` None: all but the deleted ones."""

    words: tuple[str, ...] = ()  # in the prompt, upper or lower case
    source: str | None = None
    rater: str | None = None
    split: str | None = None  # "training" or "validation"
    state: str | None = None  # of STATES
    finding: str | None = None  # code of one of health's findings
    order: str = ORDERS[0]


@dataclass
class Checkup:
    """What health found last, and in which pairs: what is deleted meanwhile stays among them, so that "show these" holds."""

    revision: tuple[int, int] = (-1, -1)
    findings: list[Finding] = field(default_factory=list)
    pairs: dict[str, frozenset[str]] = field(default_factory=dict)  # code -> ids
    model: str = ""  # whose images they should be, in words
    lock: threading.Lock = field(default_factory=threading.Lock)


def revision_of(studio: Studio) -> tuple[int, int]:
    """Changes with picks and with what is known of files."""
    return studio.project.library.revision(), studio.project.picks.revision()


@open_to("viewer")
def answer_pairs(studio: Studio, checkup: Checkup, payload: dict) -> dict:
    """Do the page's `operations`, then `count` pairs from `start` on of those it wants to see, and what it can choose from."""
    operations = payload.get("operations")
    operations = operations[:MOST_OPERATIONS] if isinstance(operations, list) else []
    if payload.get("role", OWNER) != OWNER:
        refused = ["what becomes of pairs is for a login with the role owner to say"][: len(operations)]
    else:
        refused = studio.project.picks.apply(operations, rater=token_login(payload)).refused if operations else ()
    revision = revision_of(studio)
    pairs = studio.project.picks.picked_pairs()
    found = choose_pairs(pairs, read_wanted(payload.get("wanted")), checkup)
    start, size = limit(payload.get("start"), 1 << 31), limit(payload.get("count"), MOST_ROWS)
    states = Counter(state_of(picked) for picked in pairs)
    now = time.time()
    return {
        "stored": len(operations), "refused": list(refused), "revision": list(revision),
        "total": len(found), "all": len(pairs) - states["deleted"], "states": states,
        "sources": [[name, source_words(name)] for name in _distinct(picked.pair.source for picked in pairs)],
        "raters": [[name, name or "nobody named"] for name in _distinct(picked.rater for picked in pairs)],
        "has_validation": any(picked.is_validation for picked in pairs), "looking": _looking(studio),
        "pairs": [describe_pair(studio, picked, now) for picked in found[start : start + size]],
    }  # fmt: skip


@open_to("viewer")
def answer_health(studio: Studio, checkup: Checkup, payload: dict) -> dict:
    """Everything health has to say of the pairs as they are now; slow for many, so asked for apart from the sheet."""
    with checkup.lock:  # two pages that ask the same wait for one answer
        revision = revision_of(studio)
        if checkup.revision != revision:
            _check(studio, checkup)
            checkup.revision = revision
        findings = [
            {
                "code": finding.code, "severity": finding.severity, "sentence": finding.sentence, "remedy": finding.remedy,
                "pairs": len(finding.pairs),
            }
            for finding in checkup.findings
        ]  # fmt: skip
        return {"findings": findings, "model": checkup.model, "revision": list(revision)}


def answer_remove_gone(studio: Studio, checkup: Checkup, payload: dict) -> dict:
    """Drop every pair that files are gone of, under the name `client`, which the page made for this alone: asked twice, it
    counts once. An undo of number 0 to `removed` - 1 brings each back."""
    gone = [picked for picked in studio.project.picks.picked_pairs() if state_of(picked) == "gone"]
    drops = [
        {"client": payload.get("client"), "number": number, "op": "drop", "group": picked.group, "images": _keys(picked)}
        for number, picked in enumerate(gone)
    ]
    refused = studio.project.picks.apply(drops, rater=token_login(payload)).refused
    if refused:
        raise StudioError(f"{count(len(refused), 'pair')} could not be removed: {refused[0]}.")
    return {"removed": len(drops)}


def answer_find_files(studio: Studio, checkup: Checkup, payload: dict) -> dict:
    """Scan the folder that files were moved to; pairs find theirs there by content."""
    folder = str(payload.get("folder") or "").strip()
    studio.check_place(folder, is_model=False)
    studio.project.library.start_scan(folder)
    return {}


# By the names the page calls them by; Gradio makes each an attribute of the component, so none may be one already.
ANSWERS = {
    "list_pairs": answer_pairs, "check_pairs": answer_health, "remove_gone": answer_remove_gone, "find_files": answer_find_files,
}  # fmt: skip


def read_wanted(sent: object) -> Wanted:
    """What a page asked for; whatever we do not know is left out."""
    sent = sent if isinstance(sent, dict) else {}
    texts = {name: sent[name] for name in Wanted._fields if isinstance(sent.get(name), str)}
    words = tuple(texts.pop("words", "").casefold().split())
    if texts.get("order") not in ORDERS:
        texts.pop("order", None)
    return Wanted(words=words, **texts)


def choose_pairs(pairs: Sequence[PickedPair], wanted: Wanted, checkup: Checkup) -> list[PickedPair]:
    """The pairs that are wanted, in the wanted order. `pairs`: oldest first."""
    suspects = checkup.pairs.get(wanted.finding, frozenset()) if wanted.finding else None

    def is_wanted(picked: PickedPair) -> bool:
        state = state_of(picked)
        return (
            (state == wanted.state if wanted.state else state != "deleted")
            and (wanted.source is None or picked.pair.source == wanted.source)
            and (wanted.rater is None or picked.rater == wanted.rater)
            and (wanted.split is None or picked.is_validation == (wanted.split == "validation"))
            and (suspects is None or pair_id(picked) in suspects)
            and (not wanted.words or _holds(picked.pair.prompt, wanted.words))
        )

    found = [picked for picked in reversed(pairs) if is_wanted(picked)]
    if wanted.order != "newest":
        found.sort(key=lambda picked: picked.pair.confidence, reverse=wanted.order == "most")
    return found


def state_of(picked: PickedPair) -> str:
    """One of STATES."""
    return "gone" if picked.missing and picked.state != "deleted" else picked.state


def pair_id(picked: PickedPair) -> str:
    return " ".join((picked.group, *sorted(_keys(picked))))


def describe_pair(studio: Studio, picked: PickedPair, now: float) -> dict:
    day = datetime.fromtimestamp(picked.made)
    return {
        "id": pair_id(picked), "group": picked.group, "images": _keys(picked), "state": state_of(picked),
        "prompt": shown_prompt(picked.pair.prompt), "source": source_words(picked.pair.source), "rater": picked.rater,
        "confidence": f"{picked.pair.confidence:.0%}", "age": ago(now - picked.made), "made": f"{day:%Y-%m-%d %H:%M}",
        "is_validation": picked.is_validation, "missing": list(picked.missing),
        "dropped": _drops(studio, picked) if picked.state == "deleted" else [],
        "can_reopen": not picked.pair.source.startswith("import"),
        "chosen": image_url(studio, picked.chosen, "thumb"),
        "rejected": image_url(studio, picked.rejected, "thumb") if picked.rejected else "",
        "chosen_large": image_url(studio, picked.chosen),
        "rejected_large": image_url(studio, picked.rejected) if picked.rejected else "",
    }  # fmt: skip


def _drops(studio: Studio, picked: PickedPair) -> list[list]:
    """The names of the operations that deleted a pair: undoing them all brings it back."""
    keys = _keys(picked)
    picks = studio.project.picks.book().picks_of(keys)
    return [[pick.client, pick.number] for pick in picks if pick.op == "drop" and set(pick.keys) == set(keys)]


def _check(studio: Studio, checkup: Checkup) -> None:
    store, pairs = studio.project.picks, studio.project.picks.picked_pairs()
    runs = list_runs(studio.project.runs)
    model = runs[0].config.model if runs else TrainConfig().model
    keys = {key for picked in pairs for key in _keys(picked)}
    facts = studio.project.library.image_facts(keys)
    share = TrainConfig().validation_share
    found = check_health(pairs, facts, store.sides(), store.agreement(), model, share, store.live())
    checkup.findings = [finding for finding in found if finding.code != "gone"]  # the page has a place of its own for them
    checkup.pairs = {finding.code: frozenset(pair_id(pairs[place]) for place in finding.pairs) for finding in checkup.findings}
    checkup.model = f"{model}, as in {runs[0].name}" if runs else f"{model}, the default"


def _keys(picked: PickedPair) -> list[str]:
    return [key for key in (picked.chosen, picked.rejected) if key]


def _holds(prompt: str, words: Sequence[str]) -> bool:
    prompt = prompt.casefold()
    return all(word in prompt for word in words)


def _distinct(values) -> list[str]:
    return [value for value, _ in Counter(values).most_common()]


def _looking(studio: Studio) -> str:
    """How far a scan that runs has come, for somebody who waits for files to be found; "" when none does."""
    scan = studio.project.library.current_scan()
    if scan is None or scan.finished.is_set():
        return ""
    return f"{scan.done:,} of {count(scan.total, 'file')} looked at" if scan.total else "Listing the folder"
