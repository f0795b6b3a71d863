"""What the picker's page asks of the app: keep what was picked, and say what comes next. See picker.py.

Everything in a payload is whatever a browser sent: numbers are cut to sane sizes, other types count as nothing. Only the view
and the login come out of the token, which we signed.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from dpo import StudioError
from dpo.agreement import uncertain_groups
from dpo.groups import MODES, IndexedImage, Screen, View
from dpo.picks import Pick, PickStore
from dpo.progress import Asking, Held
from ui.images import image_url
from ui.rights import OWNER
from ui.session import Studio, limit, token_login
from ui.words import count, shown_prompt

MOST_OPERATIONS, MOST_SCREENS, MOST_HELD, MOST_RECENT = 200, 16, 64, 64
MOST_PASSED = 500  # picks of other people that are passed over in search of one's own
LONGEST_NAME = 60
_GONE = {"url": "", "full": "", "width": 0, "height": 0, "seed": None}  # an image the index does not know any more


def answer_page(studio: Studio, view: View, payload: dict) -> dict:
    """Store the page's operations, then say what is next.

    `payload`: operations; mode, want, have (screens it holds: group, images, mode), first, again, client and left, as in
    `Asking`; `rater`, the name typed in the page; `recent` and `before`: how many undoable picks, older than that position;
    `rules`: those of the project that are to change; `facts`: whether the answer should say what second opinions gave.
    Operations past the limit are left for later.
    """
    project, picks = studio.project, studio.project.picks
    operations = _list(payload, "operations")[:MOST_OPERATIONS]
    login, is_owner = token_login(payload), payload.get("role", OWNER) == OWNER
    applied = picks.apply(operations, rater=login, only_own=not is_owner) if operations else None
    problem = _change_rules(picks, payload.get("rules"), is_owner)
    rater = login or _text(payload, "rater")[:LONGEST_NAME]
    asking = Asking(
        mode=payload.get("mode") if payload.get("mode") in MODES else MODES[0],
        want=limit(payload.get("want"), MOST_SCREENS), have=_held(payload), first=_text(payload, "first"),
        again=payload.get("again") is True, client=_text(payload, "client"), rater=rater, left=_text(payload, "left"),
        order=tuple(uncertain_groups(project, view)) if payload.get("sort") == "uncertain" else (),
    )  # fmt: skip
    further = picks.next_screens(project.library, view, asking)
    before = payload.get("before") if isinstance(payload.get("before"), int) else None
    own, oldest = _own_picks(picks, before, limit(payload.get("recent"), MOST_RECENT), rater)
    rules = picks.rules()
    return {
        "stored": len(operations),
        "refused": list(applied.refused) if applied else [],
        "screens": [_describe_screen(studio, screen) for screen in further.screens],
        "over": list(further.over),
        "is_complete": further.is_complete,
        "waiting": further.waiting,
        "done": further.done,
        "total": further.total,
        "preparing": _preparing(studio, view),
        "recent": [_describe_pick(studio, pick) for pick in own],
        "oldest": oldest,
        "rules": {"pairs_per_group": rules.pairs_per_group, "pairing": rules.pairing, "agreement": rules.agreement},
        "problem": problem,
        "agreement": _agreement_words(picks) if payload.get("facts") is True else None,
    }


def _list(payload: dict, name: str) -> list:
    return payload[name] if isinstance(payload.get(name), list) else []


def _text(payload: dict, name: str) -> str:
    return payload[name] if isinstance(payload.get(name), str) else ""


def _held(payload: dict) -> tuple[Held, ...]:
    held = []
    for screen in _list(payload, "have")[:MOST_HELD]:
        if isinstance(screen, dict) and screen.get("mode") in MODES:
            keys = tuple(key for key in _list(screen, "images") if isinstance(key, str))
            held.append(Held(_text(screen, "group"), keys, screen["mode"]))
    return tuple(held)


def _change_rules(picks: PickStore, wanted: object, is_owner: bool) -> str:
    """Change rules of the project as a page wants; why not, or ""."""
    if not isinstance(wanted, dict):
        return ""
    if not is_owner:
        return "How everybody picks is for a login with the role owner to say."
    kinds = {"pairs_per_group": int, "pairing": str, "agreement": bool}
    try:
        picks.set_rules(replace(picks.rules(), **{name: wanted[name] for name in kinds if type(wanted.get(name)) is kinds[name]}))
    except StudioError as error:
        return str(error)
    return ""


def _own_picks(picks: PickStore, before: int | None, wanted: int, rater: str) -> tuple[list[Pick], int | None]:
    """Up to `wanted` live picks that this person may undo, newest first: their own, and those without a name. Also the
    position to go on from; None once there are no older ones."""
    if not wanted:
        return [], before
    found = picks.recent(before, MOST_PASSED)
    own = [pick for pick in found if pick.rater in ("", rater)]
    if len(own) >= wanted:
        return own[:wanted], own[wanted - 1].position
    return own, found[-1].position if len(found) == MOST_PASSED else None


def _agreement_words(picks: PickStore) -> str:
    """What second opinions gave so far; "" where there are none."""
    agreement = picks.agreement()
    if not agreement.count:
        return ""
    kappa = "" if agreement.kappa is None else f", kappa {agreement.kappa:.2f}"
    return f"{agreement.count:,} judged twice, {agreement.agreed:,} agree{kappa}."


def _preparing(studio: Studio, view: View) -> str:
    """What to say to a person who is faster than the scan of their folder; "" when none runs."""
    scan = studio.project.library.current_scan()
    if scan is None or scan.finished.is_set() or not Path(view.folder).is_relative_to(scan.folder):
        return ""
    read = f" {scan.done:,} of {count(scan.total, 'file')} read." if scan.total else ""
    return f"Preparing...{read} A group comes here as soon as it has two images."


def _describe_screen(studio: Studio, screen: Screen) -> dict:
    images = list(screen.images)
    if screen.mode == "duel":
        random.shuffle(images)  # a preference for one side must not become one for some images; the pick records the order
    return {
        "group": screen.group.key, "mode": screen.mode, "prompt": shown_prompt(screen.group.prompt),
        "aspect": screen.group.aspect, "facts": _facts(images), "rest": screen.rest,
        "images": [_describe_image(studio, image) for image in images],
        "size": len(screen.group.images), "finishes": screen.finishes, "left": screen.likely_left, "second": screen.is_second,
    }  # fmt: skip


def _describe_pick(studio: Studio, pick: Pick) -> dict:
    """A pick and the screen it was made on, in the same order, so that an undo brings that very screen back. Whether the
    answer finished its group is not known any more (null)."""
    mode = pick.result if pick.op == "skip" else pick.op
    found = [(key, studio.project.library.image(key)) for key in pick.keys]
    images = [image for _, image in found if image]
    described = [_describe_image(studio, image) if image else {**_GONE, "key": key} for key, image in found]
    screen = {
        "group": pick.group, "mode": mode, "prompt": shown_prompt(pick.prompt),
        "aspect": images[0].record.width / images[0].record.height if images else 1.0,
        "facts": _facts(images), "images": described, "rest": 0, "size": pick.size, "finishes": None, "left": 0,
        "second": pick.is_second,
    }  # fmt: skip
    return {"pick": [pick.client, pick.number], "op": pick.op, "screen": screen}


def _describe_image(studio: Studio, image: IndexedImage) -> dict:
    record = image.record
    return {
        "key": image.key, "url": image_url(studio, image.key), "full": image_url(studio, image.key, "full"),
        "width": record.width, "height": record.height, "seed": record.seed,
    }  # fmt: skip


def _facts(images: list[IndexedImage]) -> list[str]:
    """What the unfolded prompt says besides: sizes and models, each once."""
    sizes = dict.fromkeys(f"{image.record.width} × {image.record.height}" for image in images)
    models = dict.fromkeys(image.record.model for image in images if image.record.model)
    return [", ".join(part) for part in (sizes, models) if part]
