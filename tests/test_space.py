"""The app on a Space and in a container: started as it is there, by what the card and the Dockerfile say."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from dpo.compare import BASE, LookRequest, Variant, follow_look
from dpo.config import TrainConfig
from dpo.jobs import JobRegistry, NoJobs
from dpo.project import open_project
from dpo.sample_settings import SampleSettings
from dpo.space import find_space
from tests.benchmarks._visitor import Visitor
from tests.test_adapters import build_learned
from tests.test_architecture import pins
from tests.test_docs import front_matter
from tests.test_security import REPOSITORY, free_port
from tests.tiny import SIDE, build_pipeline
from ui import TABS
from ui.space import FORGETS, NO_JOBS

HOST = "someone-studio.hf.space"
SPACE = {
    "SYSTEM": "spaces", "SPACE_ID": "someone/studio", "SPACE_HOST": HOST, "SPACE_AUTHOR_NAME": "someone",
    "SPACE_REPO_NAME": "studio", "GRADIO_SSR_MODE": "true", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_NUM_PORTS": "1",
    "GRADIO_SHARE": "False", "GRADIO_THEME": "huggingface", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
USER, PASSWORD = "me", "a:long password"
TOKEN = "e30.e30.e30"  # of a visitor of ZeroGPU, which their browser sends: three parts, all {}
START_SECONDS = 240  # a machine may be busy, and `spaces` brings all of torch along
# Runs the app, and tells when it ends what it has told others by the environment.
TELLING = "import app, atexit, os, sys; atexit.register(lambda: print('HF_HOME is', os.environ.get('HF_HOME'))); app.main()"


@contextmanager
def started(command: list[str], folder: Path, log: Path, **environment: str) -> Iterator[SimpleNamespace]:
    """The app as a process in `folder`: its port, its process, and ask(method, path, body, headers): (status, headers, body)."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GRADIO_", "HF_HOME", "STUDIO_"))}
    process = subprocess.Popen(
        [*command, "--port", str(port)], cwd=folder, env=clean | environment, stdout=log.open("wb"), stderr=subprocess.STDOUT
    )

    def ask(method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                ask("GET", "/")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
        yield SimpleNamespace(port=port, process=process, ask=ask)
    finally:
        process.kill()
        process.wait()


def log_in(app: SimpleNamespace) -> str:
    """The cookies of who has logged in."""
    form = urllib.parse.urlencode({"username": USER, "password": PASSWORD})
    status, headers, _ = app.ask("POST", "/login", form, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert status == 200
    return "; ".join(cookie.partition(";")[0] for cookie in headers.get_all("Set-Cookie"))


# ------------------------------------------------------------------------------------------------ what a Space is


def test_a_space_keeps_things_where_storage_is_attached_and_nowhere_else(tmp_path):
    assert find_space({}) is None
    attached = find_space({"SPACE_ID": "a/b", "STUDIO_STORAGE": str(tmp_path)})
    assert (attached.home, attached.is_kept, attached.has_zero_gpu) == (tmp_path, True, False)
    bare = find_space({"SPACE_ID": "a/b", "STUDIO_STORAGE": str(tmp_path / "none"), "SPACES_ZERO_GPU": "true"})
    assert (bare.home, bare.is_kept, bare.has_zero_gpu) == (Path("~"), False, True)


def test_the_card_names_a_python_that_zero_gpu_builds_with():
    """It builds with these alone, and takes the older one for any other; the pinned NumPy needs a newer one."""
    assert front_matter()["python_version"] == "3.12.12"


# ------------------------------------------------------------------------------------------------ a Space on a CPU


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """One without storage."""
    home = tmp_path_factory.mktemp("space")
    more = {"HOME": str(home), "STUDIO_STORAGE": str(home / "none"), "STUDIO_AUTH": f"{USER}:{PASSWORD}"}
    with started([sys.executable, "app.py"], REPOSITORY, home / "log", **SPACE, **more) as app:
        app.home = home
        yield app


def test_a_space_without_a_password_does_not_start_and_says_how_to_set_one(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "STUDIO_AUTH"}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=REPOSITORY, env=environment | SPACE | {"HOME": str(tmp_path)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "STUDIO_AUTH" in done.stderr


def test_a_space_listens_on_every_address_and_renders_nothing_on_a_server_of_its_own(space):
    process = psutil.Process(space.process.pid)
    listening = {(found.laddr.ip, found.laddr.port) for found in process.net_connections() if found.status == "LISTEN"}
    assert listening == {("0.0.0.0", space.port)}
    assert not [child for child in process.children(recursive=True) if "node" in child.name()]


def test_a_space_answers_to_its_own_name_alone_and_asks_for_a_login(space):
    assert space.ask("GET", "/", Host=HOST)[0] == 200
    assert space.ask("GET", "/", Host="evil.example")[0] == 400
    assert space.ask("GET", "/config", Host=HOST)[0] == 401
    assert space.ask("GET", "/config", Host=HOST, Cookie=log_in(space))[0] == 200


def test_a_space_without_storage_opens_the_demo_and_warns_on_every_tab_that_it_forgets(space):
    assert space.ask("GET", "/config", Cookie=log_in(space))[2].decode().count(FORGETS) == len(TABS)
    assert list((space.home / "image-dpo" / "demo" / "candidates").glob("*.png"))


def test_a_space_with_storage_keeps_project_and_models_there_and_does_not_warn(tmp_path):
    storage = tmp_path / "data"
    storage.mkdir()
    more = {"HOME": str(tmp_path / "home"), "STUDIO_STORAGE": str(storage), "STUDIO_AUTH": f"{USER}:{PASSWORD}"}
    with started([sys.executable, "-c", TELLING], REPOSITORY, tmp_path / "log", **SPACE, **more) as app:
        assert FORGETS not in app.ask("GET", "/config", Cookie=log_in(app))[2].decode()
        app.process.send_signal(signal.SIGINT)
        app.process.wait(30)
    assert list((storage / "image-dpo" / "demo" / "candidates").glob("*.png"))
    assert f"HF_HOME is {storage / '.huggingface'}" in (tmp_path / "log").read_text()


# ------------------------------------------------------------------------------------------------ ZeroGPU


def test_where_a_gpu_is_lent_no_job_is_taken_and_the_refusal_says_why():
    with pytest.raises(NoJobs, match="Duplicate this Space"):
        JobRegistry(NO_JOBS).submit("train", "training a", "a", lambda job: None)


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> LookRequest:
    """Three rows by a tiny model and an adapter for it."""
    place = tmp_path_factory.mktemp("look")
    build_pipeline().save_pretrained(place / "model")
    build_learned(2, 6.0)[1].save(place / "cats.safetensors")
    variants = (BASE, Variant("cats", place / "cats.safetensors", 1.0))
    return LookRequest(str(place / "model"), variants, ("a cat",), (1, 2, 3), SampleSettings(2, width=SIDE, height=SIDE))


@pytest.fixture
def paint():
    pytest.importorskip("spaces", reason="the package `spaces` is not installed")
    from ui.zero_gpu import create_painter

    return create_painter()


def test_a_look_is_painted_while_somebody_waits_for_it_and_is_a_job_to_all_who_watch(tmp_path, asked, paint):
    project, jobs = open_project(tmp_path), JobRegistry(NO_JOBS)
    rows = follow_look(project, jobs, asked, paint)
    assert next(rows).seed == 1
    job = jobs.current()
    assert (job.kind, job.state, job.done, job.total, len(job.result)) == ("compare", "running", 1, 3, 1)
    assert [row.seed for row in rows] == [2, 3]
    assert (job.state, len(job.result), jobs.current()) == ("done", 3, None)
    assert all(path.is_file() for row in job.result for path in row.images)


def test_a_look_that_is_stopped_or_left_keeps_its_rows_and_ends(tmp_path, asked, paint):
    project, jobs = open_project(tmp_path), JobRegistry(NO_JOBS)
    rows = follow_look(project, jobs, asked, paint)
    next(rows)
    jobs.current().stop.set()
    assert list(rows) == []
    left = follow_look(project, jobs, asked, paint)
    next(left)
    left.close()  # as Gradio does when its page is gone
    job = jobs.find("compare")
    assert (job.state, len(job.result), job.finished.is_set(), jobs.current()) == ("stopped", 1, True, None)


def test_what_goes_wrong_on_the_gpu_is_said_in_the_words_of_the_error(tmp_path, asked, paint):
    project, jobs = open_project(tmp_path / "project"), JobRegistry(NO_JOBS)
    model = tmp_path / "model"
    shutil.copytree(asked.model, model)
    (model / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    broken = LookRequest(str(model), asked.variants, asked.prompts, asked.seeds, asked.settings)
    assert list(follow_look(project, jobs, broken, paint)) == []
    job = jobs.find("compare")
    assert job.state == "failed" and str(model) in job.message


def test_the_gpu_is_asked_for_by_steps_and_images(asked):
    from ui.zero_gpu import DEMO_STEP_SECONDS, LOADING_SECONDS, STEP_SECONDS, gpu_seconds

    assert gpu_seconds(asked, {}, Path()) == round(LOADING_SECONDS + 3 * 2 * 2 * STEP_SECONDS)  # images, variants, steps
    demo = LookRequest("demo", asked.variants, ("a",) * 10, (1, 2), SampleSettings(25))
    assert gpu_seconds(demo, {}, Path()) == round(LOADING_SECONDS + 20 * 2 * 25 * DEMO_STEP_SECONDS)


@contextmanager
def lending() -> Iterator[SimpleNamespace]:
    """What stands in for the service of ZeroGPU: it lends a GPU that is not there, and notes what it was asked for."""
    noted: list[tuple[str, dict[str, str]]] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            noted.append((parts.path, dict(urllib.parse.parse_qsl(parts.query))))
            lent = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-none", "allowToken": "allowed"}
            body = json.dumps(lent if parts.path == "/schedule" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", noted=noted)
    finally:
        server.shutdown()


def compare_there(place: Path, **environment: str) -> tuple[dict, str]:
    """Start the app as on ZeroGPU, and compare the demo with an adapter on two prompts and two seeds: what is shown then, and
    the page as it was built."""
    demo = place / "image-dpo" / "demo"
    demo.mkdir(parents=True)
    save_adapter(demo / "cats.safetensors")
    more = {"SPACES_ZERO_GPU": "true", "STUDIO_STORAGE": str(place), "HOME": str(place), "STUDIO_AUTH": f"{USER}:{PASSWORD}"}
    with started([sys.executable, "app.py"], REPOSITORY, place / "log", **SPACE, **more, **environment) as app:
        headers = {"Cookie": log_in(app), "X-IP-Token": TOKEN}
        visitor = Visitor(f"http://127.0.0.1:{app.port}/", open_project(demo), random.Random(0), headers)
        visitor.arrive()
        asked = {"adapter": [str(demo / "cats.safetensors")], "prompts": "a red boat\na dog", "seeds": "1, 2"}
        visitor.click("start-compare", asked)
        shown = visitor.serve("results", "look_state", visitor.told[visitor.part("results")]["session"])
        visitor.leave()
    return shown, json.dumps(visitor.config)


def save_adapter(path: Path) -> None:
    """One for the demo model that changes nothing."""
    from dpo.adapters import attach_adapter
    from dpo.families import load_family
    from dpo.models import load_pipeline

    family = load_family(load_pipeline("demo"))
    attach_adapter(family, TrainConfig(lora_rank=2), starting=None, reference=None, moving=False).save(path)


def test_on_zero_gpu_spaces_comes_before_torch_and_a_look_is_painted_in_the_event_of_who_asks(tmp_path):
    """In the place of the package stands one whose functions do nothing, as the package's own do off ZeroGPU."""
    (tmp_path / "package").mkdir()
    lines = (
        "import sys", "assert 'torch' not in sys.modules",
        "def GPU(duration):", "    return gradio_auto_wrap",
        "def gradio_auto_wrap(function):", "    return function",
    )  # fmt: skip
    (tmp_path / "package" / "spaces.py").write_text("\n".join(lines))
    shown, page = compare_there(tmp_path, PYTHONPATH=str(tmp_path / "package"))
    assert (shown["made"], shown["is_active"], shown["report"]["tone"]) == (4, False, "calm"), shown["report"]
    assert page.count(json.dumps(NO_JOBS)[1:-1]) == 2  # in Train, and where blind tests are


def test_on_zero_gpu_a_look_asks_for_the_gpu_in_the_name_of_its_visitor_and_says_what_was_refused(tmp_path):
    """The package `spaces` itself, as on ZeroGPU: a process is forked, and finds no GPU on this machine."""
    pytest.importorskip("spaces", reason="the package `spaces` is not installed")
    if torch.version.cuda is None:
        pytest.skip("this PyTorch knows no CUDA, and `spaces` takes its place")
    with lending() as service:
        shown, _ = compare_there(tmp_path, SPACES_ZERO_DEVICE_API_URL=service.url)
    told = dict(service.noted)
    assert "/startup-report" in told, "a Space without a decorated function is called broken"
    assert (told["/schedule"]["durationSeconds"], told["/schedule"]["token"]) == ("23", TOKEN)
    assert "/allow" in told and told["/release"]["fail"] == "true"
    assert "ZeroGPU" in json.dumps(shown["report"]) and not shown["is_active"]


# ------------------------------------------------------------------------------------------------ a container


def dockerfile(instruction: str) -> str:
    """What the last one of these instructions says."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{instruction} (.*)$", text, re.MULTILINE)[-1]


def test_the_image_installs_the_torch_that_is_pinned():
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"torch==([\w.]+)", text) == [pins("requirements.txt")["torch"].split()[0]]


def test_a_container_opens_the_demo_in_its_volume_tells_that_it_is_well_and_ends_when_asked(tmp_path):
    """The files that reach the image, and its command, its check of health and its signal, without Docker."""
    image, home = tmp_path / "app", tmp_path / "data"
    image.mkdir()
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source = REPOSITORY / line[1:]
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, image / line[1:])
    command = [sys.executable, *json.loads(dockerfile("CMD"))[1:]]
    check = json.loads(re.search(r"CMD (\[.*\])", dockerfile("HEALTHCHECK")).group(1))
    with started(command, image, tmp_path / "log", HOME=str(home), STUDIO_AUTH=f"{USER}:{PASSWORD}") as app:
        well = [sys.executable, *(word.replace("7860", str(app.port)) for word in check[1:])]
        assert subprocess.run(well, timeout=30).returncode == 0
        assert app.ask("GET", "/config")[0] == 401
        app.process.send_signal(getattr(signal, dockerfile("STOPSIGNAL")))
        assert app.process.wait(30) == 0
        assert subprocess.run(well, timeout=30, stderr=subprocess.DEVNULL).returncode != 0
    assert list((home / "image-dpo" / "demo" / "candidates").glob("*.png"))
    headless = shlex.split("python -m dpo model demo")[1:]
    done = subprocess.run([sys.executable, *headless], cwd=image, env=os.environ | {"HOME": str(home)}, capture_output=True)
    assert done.returncode == 0, done.stderr
