"""The sample pictures of a run, for the strip under its plots, by signed address: the page names a run, a folder and a picture.

They are drawn anew from decoded pixels when they are asked for, as all images are (ui/images.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dpo.events import Event, SamplesSaved
from dpo.metadata import read_image
from dpo.pixels import PixelError
from dpo.runs import Run, list_runs
from ui.rights import open_to
from ui.session import Studio
from ui.words import shown_prompt

PURPOSE = "sample"
MOST_STEPS = 60  # of a long run, evenly spaced, the newest among them: what fits a line of buttons


def strip_of(studio: Studio, run: Run, events: Sequence[Event]) -> dict:
    """What the strip part takes; empty while there are no pictures. Steps whose pictures are gone are left out."""
    base = sorted(run.base_samples.glob("*.png"))
    saved = {event.step: run.samples / Path(event.folder).name for event in events if isinstance(event, SamplesSaved)}
    names = [path.name for path in base]
    whole = [(step, folder) for step, folder in sorted(saved.items()) if all((folder / name).is_file() for name in names)]
    if not base or not whole:
        return {}
    gap = -(-len(whole) // MOST_STEPS)
    steps = [
        {"step": step, "images": [_address(studio, run, folder / name) for name in names]} for step, folder in whole[::-gap][::-1]
    ]
    prompts = [shown_prompt(read_image(path).prompt or path.stem) for path in base]
    return {"run": run.name, "prompts": prompts, "base": [_address(studio, run, path) for path in base], "steps": steps}


def routes(studio: Studio) -> list[Route]:
    """The signature keeps a page to what it was shown; whether somebody may look at all, the gate asks before (ui/gate.py)."""

    @open_to("viewer")
    def send(request: Request) -> Response:
        parts = [request.path_params[name] for name in ("run", "folder", "name")]
        run = next((run for run in list_runs(studio.project.runs) if run.name == parts[0]), None)
        if run is None or not studio.is_signed(PURPOSE, "\0".join(parts), request.path_params["signature"]):
            return PlainTextResponse("No such picture.", status_code=404)
        previews = studio.project.previews
        try:
            data, media_type = previews.get(previews.get_file(run.samples / parts[1] / parts[2], "full"), "full")
        except PixelError as error:
            return PlainTextResponse(str(error), status_code=404, headers={"Cache-Control": "no-store"})
        # The address holds when the file was written, so what it names never changes.
        headers = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return Response(data, media_type=media_type, headers=headers)

    return [Route("/studio/sample/{signature}/{run}/{folder}/{name}", send, methods=["GET"])]


def _address(studio: Studio, run: Run, path: Path) -> str:
    parts = (run.name, path.parent.name, path.name)
    signature = studio.sign(PURPOSE, "\0".join(parts))
    return f"/studio/sample/{signature}/{'/'.join(quote(part) for part in parts)}?written={path.stat().st_mtime_ns}"
