"""The adapter file of a run, what was exported, and the project as a zip, behind signed addresses: the page names a run, an
export or a zip, never a path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from dpo.runs import Run, list_runs
from ui.session import Studio

PURPOSE = "adapter"
EXPORT = "export"
PROJECT = "project"


def adapter_url(studio: Studio, run: Run) -> str:
    return f"/studio/adapter/{studio.sign(PURPOSE, run.name)}/{quote(run.name)}.safetensors"


def export_url(studio: Studio, name: str) -> str:
    """The address of a file in exports/, such as "pairs.zip" or "cats-1-comfyui-fp16/cats-1.safetensors"."""
    return f"/studio/export/{studio.sign(EXPORT, name)}/{quote(name)}"


def packed_folder(studio: Studio) -> Path:
    """Where the page puts the zip of a project: outside all that goes into it."""
    return studio.project.path / "packed"


def project_url(studio: Studio, name: str) -> str:
    return f"/studio/project/{studio.sign(PROJECT, name)}/{quote(name)}"


def routes(studio: Studio) -> list[Route]:
    """The owner's: the signature keeps a page to what it was shown, and the gate asks who they are (ui/gate.py)."""

    def adapter(request: Request) -> Response:
        name = request.path_params["name"].removesuffix(".safetensors")
        run = next((run for run in list_runs(studio.project.runs) if run.name == name), None)
        signed = studio.is_signed(PURPOSE, name, request.path_params["signature"])
        if run is None or not signed or not run.adapter.is_file():
            return PlainTextResponse("There is no such adapter.", status_code=404)
        return FileResponse(run.adapter, filename=f"{run.name}.safetensors", headers={"Cache-Control": "private, no-store"})

    def export(request: Request) -> Response:
        name = request.path_params["name"]
        path = studio.project.exports / name
        if not studio.is_signed(EXPORT, name, request.path_params["signature"]) or not path.is_file():
            return PlainTextResponse("There is no such export.", status_code=404)
        return FileResponse(path, filename=path.name, headers={"Cache-Control": "private, no-store"})

    def project(request: Request) -> Response:
        name = request.path_params["name"]
        path = packed_folder(studio) / name
        if not studio.is_signed(PROJECT, name, request.path_params["signature"]) or not path.is_file():
            return PlainTextResponse("There is no such zip.", status_code=404)
        return FileResponse(path, filename=path.name, headers={"Cache-Control": "private, no-store"})

    return [
        Route("/studio/adapter/{signature}/{name}", adapter),
        Route("/studio/export/{signature}/{name:path}", export),
        Route("/studio/project/{signature}/{name}", project),
    ]
