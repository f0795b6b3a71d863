"""One queue for the one device: long work runs in a thread, one job at a time, and anyone may watch.

A job belongs to the process, not to a browser tab: closing or reloading a page changes nothing. Progress is data that
pages read, never a callback into a page.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dpo import StudioError
from dpo.claims import DEVICE, QUEUE, SECONDS_BETWEEN_LOOKS, Claim, Claimant, Claimed

log = logging.getLogger(__name__)


class AlreadyRunning(StudioError):
    """The same work was asked for twice."""


class NoJobs(StudioError):
    """This machine lends a device to whoever asks, and none to work that goes on by itself."""


@dataclass
class Job:
    """Work in the queue. `state`: "queued", "running", "done", "stopped" or "failed". `done` of `total` is its progress."""

    kind: str  # "train", "compare", "test", "export", "probe", "candidates", "score" or "score_test"
    title: str  # for people: "training cats-2"
    key: str  # the same key is never queued twice, e.g. the run's name
    state: str = "queued"
    message: str = ""
    done: int = 0
    total: int = 0
    started: float = 0.0
    result: object = None
    request: object = None  # what was asked for, for those who show it
    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def is_active(self) -> bool:
        return self.state in ("queued", "running")

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None while there is no pace."""
        if self.state != "running" or not self.done or not self.total:
            return None
        return (time.monotonic() - self.started) / self.done * (self.total - self.done)

    def report(self, done: int, total: int, message: str = "") -> None:
        self.done, self.total = done, total
        self.message = message or self.message


class JobRegistry:
    """The queue of one process. `work(job)` runs in the one worker thread; a StudioError becomes the job's message.

    `refusal`: why there can be no such thread, in words; "" where there can. `folder`: of a project that other processes may have
    open, too. Then one of them has the queue, until it ends, and whichever works has the device (dpo/claims.py).
    """

    def __init__(self, refusal: str = "", folder: Path | None = None) -> None:
        self._refusal = refusal
        self._claims = {name: Claim(folder, name) for name in (QUEUE, DEVICE)} if folder else {}
        self._lock = threading.Condition()
        self._queue: deque[tuple[Job, Callable[[Job], object]]] = deque()
        self._jobs: list[Job] = []
        self._thread: threading.Thread | None = None

    def submit(self, kind: str, title: str, key: str, work: Callable[[Job], object], result: object = None, request=None) -> Job:
        """Queue work and return at once. `result` is what `job.result` holds until work returns; `request` stays with the job.

        Raises AlreadyRunning if a job of this kind and key waits or runs, Claimed if another process has the queue, NoJobs where
        there can be none.
        """
        if self._refusal:
            raise NoJobs(self._refusal)
        owner = self.owner()
        if owner is not None:
            raise Claimed(
                f"Another app has this project open and does its long work ({owner}). Start it there, or close that app: then "
                "this one takes over. Picks and votes are kept here as ever."
            )
        with self._lock:
            for job in self._jobs:
                if job.is_active and (job.kind, job.key) == (kind, key):
                    raise AlreadyRunning(f"{job.title} is {job.state} already. Wait for it, or stop it first.")
            job = Job(kind, title, key, result=result, request=request)
            self._jobs = [*self._jobs[-49:], job]
            self._queue.append((job, work))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
                self._thread.start()
            self._lock.notify()
        return job

    def carry_out(
        self, kind: str, title: str, key: str, work: Callable[[Job], Iterator[object]], result: object = None, request=None
    ) -> Iterator[object]:
        """Do work here and now, in the caller's thread, while the caller goes on asking for what it yields. To all who watch it
        is a job like another; one that is left or stopped half-way keeps its result so far."""
        job = Job(kind, title, key, "running", started=time.monotonic(), result=result, request=request)
        with self._lock:
            self._jobs = [*self._jobs[-49:], job]
        try:
            with closing(work(job)) as steps:
                for step in steps:
                    if job.stop.is_set():
                        break
                    yield step
            job.state = "stopped" if job.stop.is_set() else "done"
        except GeneratorExit:
            job.stop.set()
            job.state = "stopped"
            raise
        except Exception as error:
            self._explain(job, error)
        finally:
            job.finished.set()

    def owner(self) -> Claimant | None:
        """The other process that has the queue. None if this one has it; it takes over as soon as nobody else has."""
        return None if self._take(QUEUE, "long work is done by another app") else self._claims[QUEUE].other()

    def guest(self) -> Claimant | None:
        """The other process, a command perhaps, that has the device now."""
        return self._claims[DEVICE].other() if self._claims else None

    def elsewhere(self) -> Claimant | None:
        """Another process that does this project's long work: with the device, or with the queue."""
        running = any(job.state == "running" for job in self._jobs)
        return None if running else self.guest() or self.owner()

    def current(self) -> Job | None:
        """The job that has the device, else the next one waiting."""
        active = self.active()
        return next((job for job in active if job.state == "running"), active[0] if active else None)

    def active(self) -> list[Job]:
        """The job that has the device, then those that wait, in their order."""
        with self._lock:
            return [job for job in self._jobs if job.state == "running"] + [job for job, _ in self._queue]

    def cancel(self, job: Job) -> bool:
        """Take a job that waits out of the queue. False if it does not wait any more: then only its own work can end it."""
        with self._lock:
            place = self._place(job)
            if place is None:
                return False
            del self._queue[place]
            job.state = "stopped"
        job.stop.set()
        job.finished.set()
        return True

    def move(self, job: Job, places: int) -> bool:
        """Move a job that waits so many places back, or forward if negative; no further than the ends of the queue.

        False if it does not wait any more.
        """
        with self._lock:
            place = self._place(job)
            if place is None:
                return False
            entry = self._queue[place]
            del self._queue[place]
            self._queue.insert(max(0, place + places), entry)
        return True

    def _place(self, job: Job) -> int | None:
        return next((place for place, (waiting, _) in enumerate(self._queue) if waiting is job), None)

    def find(self, kind: str, key: str | None = None) -> Job | None:
        """The newest job of this kind (and key), whatever became of it."""
        with self._lock:
            matching = [job for job in self._jobs if job.kind == kind and key in (None, job.key)]
        return matching[-1] if matching else None

    def standing(self) -> tuple[tuple[str, str, str], ...]:
        """(kind, key, state) of the newest jobs, whatever became of them: changes whenever one comes, begins or ends."""
        with self._lock:
            return tuple((job.kind, job.key, job.state) for job in self._jobs)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._queue and not self._lock.wait_for(lambda: self._queue, timeout=5):
                    self._thread = None
                    return
                job, work = self._queue[0]
                if not job.stop.is_set() and not self._take(DEVICE, job.title):
                    self._lock.wait(SECONDS_BETWEEN_LOOKS)  # it may be taken out of the queue, or another put before it
                    continue
                self._queue.popleft()
                job.state, job.started = "running", time.monotonic()
            log.info("%s begins", job.title)
            if job.stop.is_set():
                job.state = "stopped"
            else:
                self._work(job, work)
            log.info("%s: %s", job.title, job.state)
            if self._claims:
                self._claims[DEVICE].give_up()
            job.finished.set()

    def _take(self, name: str, doing: str) -> bool:
        """A claim. A folder that is gone claims nothing: whatever is done in it says so itself."""
        try:
            return not self._claims or self._claims[name].take(doing)
        except OSError as error:
            log.warning("%s of this project cannot be claimed: %s", name, error)
            return True

    def _work(self, job: Job, work: Callable[[Job], object]) -> None:
        try:
            job.result = work(job)
            job.state = "stopped" if job.stop.is_set() else "done"
        except Exception as error:  # the thread must live on, and the person must hear of it
            self._explain(job, error)

    @staticmethod
    def _explain(job: Job, error: Exception) -> None:
        words = str(error)
        if not isinstance(error, StudioError):
            words = f"{job.title} failed unexpectedly: {type(error).__name__}: {error}. The log has the details."
        log.error("%s failed: %s", job.title, words, exc_info=None if isinstance(error, StudioError) else error)
        job.message, job.state = words, "failed"
