"""Start here: `python app.py` opens the studio in a browser tab. Flags in, tabs built, launched. No logic."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from dpo.memory import give_memory_back, share_one_arena
from dpo.space import find_space


def main(arguments: list[str] | None = None) -> None:
    space = find_space(os.environ)
    demo = (space.home if space else Path("~")) / "image-dpo" / "demo"
    parser = argparse.ArgumentParser(prog="app.py", description="From a folder of images to an adapter you can see working.")
    parser.add_argument("--project", type=Path, default=demo, metavar="DIR", help="project folder (default: %(default)s)")
    parser.add_argument("--port", type=int, metavar="N", help="port of the page (default: 7860, or the next free one)")
    parser.add_argument("--host", default="0.0.0.0" if space else "127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--name", action="append", default=[], metavar="NAME", help="a name the page is reached by; repeatable")
    parser.add_argument("--auth", default=os.environ.get("STUDIO_AUTH"), help="user:password to ask for (default: $STUDIO_AUTH)")
    parser.add_argument("--users", type=Path, metavar="FILE", help="who may log in, and as what: see `python -m dpo users`")
    parser.add_argument("--share", action="store_true", help="also open a public link through gradio.live")
    parser.add_argument(
        "--root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder a shared page reaches too; repeatable",
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="ID", help="a hub id that a shared page may load; repeatable"
    )
    parser.add_argument("--verbose", action="store_true", help="say on the terminal what goes into the project's log")
    # Where no command line can be given, as on a Space, the variable holds what would stand there.
    given = sys.argv[1:] if arguments is None else arguments
    flags = parser.parse_args([*shlex.split(os.environ.get("STUDIO_FLAGS", "")), *given])
    folder = flags.project.expanduser()
    share_one_arena()

    # Gradio reads all of these when it is imported; without the first it phones home. Of the last 10,000 events it would keep
    # statistics that nobody sees, and count them anew after every single one.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(2**31)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "cache" / "gradio")
    if space and space.is_kept:  # downloaded models outlive a restart too
        os.environ.setdefault("HF_HOME", str(space.home / ".huggingface"))
    if space and space.has_zero_gpu:
        import spaces  # noqa: F401  # before torch, which it changes

    from dpo import StudioError
    from dpo.demo.candidates import prepare_demo
    from dpo.jobs import JobRegistry
    from dpo.log import keep_log
    from dpo.project import open_project
    from ui import create_app, launch
    from ui.login import find_space_login
    from ui.places import check_roots
    from ui.security import check_doors, choose_port
    from ui.session import Studio, project_secret
    from ui.space import NO_JOBS

    try:
        logins = flags.users, find_space_login(os.environ)
        doors = check_doors(flags.host, flags.auth, flags.share, space is not None, *logins, flags.name)
        reach = {"is_shared": doors.lets_others_in, "roots": check_roots(flags.root), "models": frozenset(flags.model)}
        port = choose_port(doors.host, flags.port)
        keep_log(folder, flags.verbose, [flags.auth or ""])
        project = open_project(folder)
        if flags.project == demo:
            prepare_demo(project)
        jobs = JobRegistry(NO_JOBS if space and space.has_zero_gpu else "", project.path)
        give_memory_back(lambda: jobs.current() is not None)
        studio = Studio(project, jobs, project_secret(project.path), **reach, space=space)
        launch(create_app(studio), studio, doors, port)
    except StudioError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
