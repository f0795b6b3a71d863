"""What the shelf asks of the app: `ANSWERS`, each a function of the studio, the view its token was signed for, and the
payload, which is whatever a browser sent. Numbers are cut to sane sizes, names are looked up and never used as paths.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from dpo import StudioError
from dpo.agreement import uncertain_groups
from dpo.groups import Face, GroupLine, IndexedImage, View, identify, normalise_prompt
from dpo.library import StandIns
from dpo.metadata import read_texts
from ui.images import image_url
from ui.rights import open_to
from ui.session import Studio, clean_view, limit
from ui.uploads import keep_table
from ui.words import (
    REASON_ADVICE,
    REASON_WORDS,
    SILENT,
    certainty_words,
    count,
    reason_words,
    shown_prompt,
    useless_folder,
)

MOST_LINES, MOST_IMAGES, MOST_FILES = 200, 120, 100  # in one answer
LONGEST_TEXT = 100_000  # characters of one raw text
LONGEST_PROMPT = 20_000
CHANGED = Face("", "")  # of a group that a scan changed a moment ago: the page hears of it, and asks again


@open_to("viewer")
def answer_facts(studio: Studio, view: View, payload: dict) -> dict:
    """What stands around the list: values to filter by, counts, and what was left out of the whole folder."""
    library, wanted = studio.project.library, _wanted(view, payload)
    everything = View(folder=view.folder)
    options = {name: value for name, value in asdict(wanted).items() if isinstance(value, bool)}
    whole = library.catalogue(everything)
    return {
        "images": whole.images,
        "groups": len(library.catalogue(replace(everything, **options)).lines),
        "facets": library.facets(view.folder),
        "reasons": [[code, reason_words(code, whole.reasons[code])] for code in REASON_WORDS if code in whole.reasons],
        "silent": [code for code in SILENT if code in whole.reasons],
        "stand_ins": asdict(library.stand_ins(view.folder)),
        "advice": useless_folder(view.folder, whole),
    }


@open_to("viewer")
def answer_lines(studio: Studio, view: View, payload: dict) -> dict:
    """`count` lines of the list from `start` on."""
    wanted, sort = _wanted(view, payload), payload.get("sort")
    start, size = limit(payload.get("start"), 1 << 31), limit(payload.get("count"), MOST_LINES)
    catalogue = studio.project.library.catalogue(wanted)
    left = studio.project.picks.unpicked(studio.project.library, wanted, "best_worst")
    if sort == "unpicked":
        lines = sorted(catalogue.lines, key=lambda line: _rank(left.get(line.key)))
    elif sort == "uncertain":  # groups without scores come last
        places = {key: place for place, key in enumerate(uncertain_groups(studio.project, wanted))}
        lines = sorted(catalogue.lines, key=lambda line: places.get(line.key, len(places)))
    else:
        lines = catalogue.sorted(sort if sort in ("size", "newest") else "path")
    shown = lines[start : start + size]
    faces = studio.project.library.faces(wanted, shown)
    return {
        "total": len(lines),
        "lines": [_describe_line(studio, line, faces.get(line.key, CHANGED), left.get(line.key)) for line in shown],
    }


@open_to("viewer")
def answer_group(studio: Studio, view: View, payload: dict) -> dict:
    """One group, and `count` of its images from `start` on, each with everything its file says."""
    library = studio.project.library
    group = library.group(_wanted(view, payload), str(payload.get("key")))
    if group is None:
        raise StudioError("This group is not there any more: its files changed, or it is grouped differently now.")
    near = library.near([image.key for image in group.images])
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(near.values()), 1)}
    alike = {key: numbers[cluster] for key, cluster in near.items()}
    start, size = limit(payload.get("start"), 1 << 31), limit(payload.get("count"), MOST_IMAGES)
    sizes = dict.fromkeys(f"{image.record.width} × {image.record.height}" for image in group.images)
    twins = f"{count(len(near), 'image')} with a near twin" if near else ""
    return {
        "key": group.key, "prompt": shown_prompt(group.prompt), "size": len(group.images),
        "about": " · ".join(part for part in (", ".join(sizes), twins) if part),
        "images": [_describe_image(studio, view, image, alike.get(image.key)) for image in group.images[start : start + size]],
    }  # fmt: skip


@open_to("viewer")
def answer_files(studio: Studio, view: View, payload: dict) -> dict:
    """`count` of the files behind one reason, from `start` on."""
    library, reason = studio.project.library, str(payload.get("reason"))
    number = library.catalogue(View(folder=view.folder)).reasons.get(reason, 0)
    start, size = limit(payload.get("start"), 1 << 31), limit(payload.get("count"), MOST_FILES)
    files = library.left_out(view.folder, reason, start, size) if number else []
    return {
        "title": reason_words(reason, number), "total": number, "advice": REASON_ADVICE.get(reason, ""),
        "takes_prompt": reason in (*SILENT, "alone"),
        "files": [
            {
                "key": file.key, "name": _name(view, file.path), "sentence": file.sentence,
                "thumb": image_url(studio, file.key, "thumb") if file.key and reason not in NO_PICTURE else "",
                "prompt": _prompt(studio, file.key) if reason == "alone" else "",
            }
            for file in files
        ],
    }  # fmt: skip


NO_PICTURE = ("unreadable", "not_image")


@open_to("viewer")
def answer_raw_text(studio: Studio, view: View, payload: dict) -> dict:
    """Every text in one file, as it stands there."""
    image = _find(studio, view, payload)
    return {"texts": [{"where": field.where, "text": _cut(field.text)} for field in read_texts(image.path)]}


def answer_give_prompt(studio: Studio, view: View, payload: dict) -> dict:
    """Give an image the prompt a person typed, or take it back with an empty one."""
    image, prompt = _find(studio, view, payload), str(payload.get("prompt") or "")
    if len(prompt) > LONGEST_PROMPT:
        raise StudioError(f"This prompt has {len(prompt):,} characters. Use {LONGEST_PROMPT:,} or fewer.")
    library = studio.project.library
    library.give_prompt(image.key, prompt)
    normal = normalise_prompt(prompt)
    if not normal:
        return {"said": "Taken back."}
    number = identify(normal)
    sizes = [line.size for line in library.catalogue(View(folder=view.folder)).lines if line.prompt == number]
    return {"said": f"Saved: one of {max(sizes)} now." if sizes else "Saved. No other image here has this prompt yet."}


def answer_stand_ins(studio: Studio, view: View, payload: dict) -> dict:
    """Choose where a missing prompt comes from. `chosen`: sidecar, folder_name, pixels, table (a path), upload (one just sent).
    Looking into pixels takes a scan, which begins at once."""
    chosen = payload.get("chosen")
    chosen = chosen if isinstance(chosen, dict) else {}
    table = str(chosen.get("table") or "").strip()
    if chosen.get("upload"):
        table = str(keep_table(studio.project, str(chosen["upload"])))
    elif table:
        table = str(Path(view.folder) / Path(table).expanduser())
        studio.check_place(table, is_model=False)
    library = studio.project.library
    switches = {name: chosen.get(name) is True for name in ("sidecar", "folder_name", "pixels")}
    is_new = switches["pixels"] and not library.stand_ins(view.folder).pixels
    library.set_stand_ins(view.folder, StandIns(**switches, table=table))
    if is_new:
        library.start_scan(view.folder)
    return {}


# By the names the page calls them by; Gradio makes each an attribute of the component, so none may be one already.
ANSWERS = {
    "list_facts": answer_facts, "list_lines": answer_lines, "open_group": answer_group, "list_files": answer_files,
    "read_raw_text": answer_raw_text, "give_prompt": answer_give_prompt, "choose_stand_ins": answer_stand_ins,
}  # fmt: skip


def _wanted(view: View, payload: dict) -> View:
    """What the page wants to see of the folder its token is for."""
    return clean_view(payload.get("wanted"), view.folder)


def _rank(left: int | None) -> int:
    """Groups nobody picked from come first, those that are done last."""
    return 0 if left is None else 1 if left else 2


def _describe_line(studio: Studio, line: GroupLine, face: Face, left: int | None) -> dict:
    return {
        "key": line.key, "prompt": shown_prompt(face.prompt), "size": line.size, "thumb": image_url(studio, face.first, "thumb"),
        "picked": "" if left is None else "begun" if left else "picked", "newest": _day(line.newest),
    }  # fmt: skip


def _describe_image(studio: Studio, view: View, image: IndexedImage, near: int | None) -> dict:
    record = image.record
    written = "" if record.written_size in (None, (record.width, record.height)) else " × ".join(map(str, record.written_size))
    loras = ", ".join(lora.name if lora.strength is None else f"{lora.name} {lora.strength:g}" for lora in record.loras)
    facts = [
        ("Prompt", record.prompt or ""), ("Negative", record.negative_prompt),
        *(("Or", text) for text in record.alternatives),
        ("Seed", _text(record.seed)), ("Steps", _text(record.steps)), ("Sampler", record.sampler),
        ("Guidance", _text(record.guidance)), ("Model", record.model), ("LoRAs", loras),
        ("Size", f"{record.width} × {record.height}{f', written down as {written}' if written else ''}"),
        ("Made by", record.generator), ("Found in", record.where), ("How sure", certainty_words(record.certainty)),
        *(("Warning", text) for text in record.warnings),
        ("File", _name(view, image.path)),
    ]  # fmt: skip
    return {
        "key": image.key, "seed": record.seed, "alike": near, "facts": [fact for fact in facts if fact[1]],
        "prompt": record.prompt or "", "is_given": record.certainty == "given",
        "thumb": image_url(studio, image.key, "thumb"), "preview": image_url(studio, image.key),
        "full": image_url(studio, image.key, "full"),
    }  # fmt: skip


def _find(studio: Studio, view: View, payload: dict) -> IndexedImage:
    """The image a page names by its key. Raises StudioError unless it lies in the page's folder."""
    image = studio.project.library.image(str(payload.get("key")))
    if image is None or not Path(image.path).is_relative_to(view.folder):
        raise StudioError("This image is not in the index any more. Scan its folder again.")
    return image


def _prompt(studio: Studio, key: str) -> str:
    image = studio.project.library.image(key)
    return (image.record.prompt or "") if image else ""


def _name(view: View, path: str) -> str:
    return path.removeprefix(view.folder).lstrip("/\\")


def _day(seconds: float) -> str:
    day = datetime.fromtimestamp(seconds)
    return f"{day:%b} {day.day}" if day.year == datetime.now().year else f"{day:%b} {day.day}, {day.year}"


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:g}" if isinstance(number, float) else str(number)


def _cut(text: str) -> str:
    left = len(text) - LONGEST_TEXT
    return text if left <= 0 else f"{text[:LONGEST_TEXT]}\n... and {left:,} more characters"
