"""The adapter file of a run, behind a signed address: the page names a run, never a path."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from dpo.runs import Run, list_runs
from ui.session import Studio

PURPOSE = "adapter"


def adapter_url(studio: Studio, run: Run) -> str:
    return f"/studio/adapter/{studio.sign(PURPOSE, run.name)}/{quote(run.name)}.safetensors"


def routes(studio: Studio) -> list[Route]:
    """Gradio's login does not cover routes of our own: the signature is what lets a reader in."""

    def adapter(request: Request) -> Response:
        name = request.path_params["name"].removesuffix(".safetensors")
        run = next((run for run in list_runs(studio.project.runs) if run.name == name), None)
        signed = studio.is_signed(PURPOSE, name, request.path_params["signature"])
        if run is None or not signed or not run.adapter.is_file():
            return PlainTextResponse("There is no such adapter.", status_code=404)
        return FileResponse(run.adapter, filename=f"{run.name}.safetensors", headers={"Cache-Control": "private, no-store"})

    return [Route("/studio/adapter/{signature}/{name}", adapter)]
