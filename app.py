"""Start here: `python app.py` opens the studio in a browser tab. Flags in, tabs built, launched. No logic."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="app.py", description="From a folder of images to an adapter you can see working.")
    parser.add_argument("--project", type=Path, default=Path("~/image-dpo/demo"), help="project folder (%(default)s)")
    parser.add_argument("--port", type=int, help="port of the page (7860, or the next free one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--auth", help="user:password that the page asks for")
    parser.add_argument("--share", action="store_true", help="also open a public Gradio link")
    flags = parser.parse_args(arguments)

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: it phones home otherwise

    from dpo.jobs import JobRegistry
    from dpo.project import open_project
    from ui import create_app
    from ui.session import Studio, project_secret

    project = open_project(flags.project.expanduser())
    studio = Studio(project, JobRegistry(), project_secret(project.path))
    create_app(studio).launch(server_name=flags.host, server_port=flags.port, share=flags.share, ssr_mode=False)


if __name__ == "__main__":
    main()
