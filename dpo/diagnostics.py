"""What helps somebody else see what went wrong, as a text to paste: versions, machine, jobs, the last run, the last errors.

Nothing in it says who or where: home folders become ~, and the names of user and machine, tokens, passwords and prompts are left
out. No torch is loaded for it.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import psutil

from dpo import StudioError
from dpo.jobs import Job, JobRegistry
from dpo.log import last_errors, secrets_here, strike_out, versions
from dpo.runs import list_runs

if TYPE_CHECKING:
    from dpo.project import Project

MOST_JOBS, MOST_ERRORS = 12, 12
LONGEST_LINE = 2000  # characters of one error, with its traceback
SECONDS_FOR_GPU = 5
# Names that many machines have, and that stand in for nobody.
COMMON_NAMES = {"root", "user", "ubuntu", "admin", "runner", "localhost", "app"}
_HOMES = re.compile(r"(?:/(?:home|Users)/|[A-Za-z]:[\\/]+Users[\\/]+)[^/\\\s'\":]+")
_HOSTS = re.compile(r"\b[\w-]+(?=\.(?:gradio\.live|hf\.space|local|lan|internal)\b)")


def diagnose(project: Project, jobs: JobRegistry | None = None) -> str:
    """The text. `jobs`: those of this process, for a page."""
    parts = {
        "Versions": [versions()],
        "Machine": _machine(project.path),
        "Jobs": [_job_line(jobs.find(kind, key)) for kind, key, _ in jobs.standing()[-MOST_JOBS:]] if jobs else [],
        "Last run": _last_run(project),
        "Last warnings and errors": [entry[:LONGEST_LINE] for entry in last_errors(project.path, MOST_ERRORS)],
    }
    lines = ["Image DPO Studio"]
    for title, found in parts.items():
        lines += ["", title, *(f"  {line}" for entry in found or ["none"] for line in entry.splitlines())]
    return anonymous("\n".join(lines), project.path)


def anonymous(text: str, project: Path) -> str:
    """The text without what says who and where: secrets, home folders, the names of user, machine and the project's place."""
    text = strike_out(text, secrets_here())
    text = text.replace(str(project), "PROJECT")
    text = _HOMES.sub("~", text.replace(str(Path.home()), "~")) if len(str(Path.home())) > 1 else _HOMES.sub("~", text)
    for name, stand_in in ((_user(), "USER"), (socket.gethostname(), "HOST")):
        if len(name) > 2 and name.lower() not in COMMON_NAMES:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", stand_in, text, flags=re.IGNORECASE)
    return _HOSTS.sub("HOST", text)


def _machine(project: Path) -> list[str]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(project)
    return [
        f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores",
        f"memory: {_gib(memory.total)}, {_gib(memory.available)} free; this process {_gib(psutil.Process().memory_info().rss)}",
        f"disk of the project: {_gib(disk.total)}, {_gib(disk.free)} free",
        f"device: {_device()}",
        f"environment: {', '.join(sorted(name for name in os.environ if name.startswith(('STUDIO_', 'SPACE', 'CUDA_')))) or '-'}",
    ]


def _device() -> str:
    """As torch sees it, if a job has loaded it; else as the system does."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return f"{torch.cuda.get_device_name()}, {_gib(total)}, {_gib(free)} free"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=SECONDS_FOR_GPU)
    except (OSError, subprocess.TimeoutExpired):
        return "no NVIDIA GPU found" + (", Apple silicon" if platform.processor() == "arm" and sys.platform == "darwin" else "")
    return "; ".join(told.stdout.strip().splitlines()) or f"nvidia-smi ended with {told.returncode}"


def _job_line(job: Job) -> str:
    progress = f", {job.done:,} of {job.total:,}" if job.total else ""
    return f"{job.kind} {job.key}: {job.state}{progress}{f': {job.message}' if job.state == 'failed' else ''}"


def _last_run(project: Project) -> list[str]:
    runs = list_runs(project.runs)
    if not runs:
        return []
    run, status = runs[0], runs[0].status()
    lines = [f"{run.name}: {status.state}, step {status.step} of {status.total_steps}, {status.num_pairs} items"]
    if status.state == "failed":
        lines.append(status.message)
    try:
        settings = {name: _last_part(value) for name, value in asdict(run.config).items()}
    except StudioError as error:
        return [*lines, str(error)]
    return [*lines, json.dumps(settings)]


def _last_part(value: object) -> object:
    """Of a path the last part: the rest says where, not what."""
    for kind in (PurePosixPath, PureWindowsPath):
        if isinstance(value, str) and (kind(value).is_absolute() or value.startswith("~")):
            return kind(value).name
    return value


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number that nobody is called by
        return ""


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
