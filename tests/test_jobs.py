import threading
import time

import pytest

from dpo import StudioError
from dpo.jobs import AlreadyRunning, JobRegistry


def finish(job):
    assert job.finished.wait(10)
    return job


def test_one_job_runs_at_a_time_and_the_next_waits_visibly():
    jobs, gate, order = JobRegistry(), threading.Event(), []
    first = jobs.submit("train", "training a", "a", lambda job: (gate.wait(10), order.append("a")))
    second = jobs.submit("train", "training b", "b", lambda job: order.append("b"))
    assert jobs.current() is first
    assert second.state == "queued" and jobs.active() == [first, second]
    gate.set()
    finish(second)
    assert order == ["a", "b"] and jobs.current() is None


def test_the_same_work_twice_is_refused_with_a_sentence():
    jobs, gate = JobRegistry(), threading.Event()
    first = jobs.submit("train", "training cats", "cats", lambda job: gate.wait(10))
    with pytest.raises(AlreadyRunning, match=r"^training cats is (queued|running) already. Wait for it, or stop it first.$"):
        jobs.submit("train", "training cats", "cats", lambda job: None)
    gate.set()
    finish(first)
    finish(jobs.submit("train", "training cats", "cats", lambda job: None))


def test_a_mistake_becomes_the_jobs_message_and_the_queue_goes_on(caplog):
    def mistake(job):
        raise StudioError("The disk is full.")

    def bug(job):
        raise KeyError("parameters")

    jobs = JobRegistry()
    first, second = (finish(jobs.submit("train", "training", work.__name__, work)) for work in (mistake, bug))
    assert (first.state, first.message) == ("failed", "The disk is full.")
    assert second.state == "failed" and "KeyError: 'parameters'" in second.message
    assert "KeyError" in caplog.text and "in bug" in caplog.text
    assert finish(jobs.submit("train", "training", "c", lambda job: 42)).result == 42


def test_a_job_stopped_while_it_waits_never_starts():
    jobs, gate, ran = JobRegistry(), threading.Event(), []
    first = jobs.submit("train", "training", "a", lambda job: gate.wait(10))
    second = jobs.submit("train", "training", "b", lambda job: ran.append(1))
    second.stop.set()
    gate.set()
    finish(first)
    assert finish(second).state == "stopped" and not ran


def test_progress_has_a_time_left_once_there_is_a_pace():
    jobs, seen = JobRegistry(), []

    def work(job):
        seen.append(job.seconds_left)
        job.started -= 10.0
        job.report(1, 4, "sampling")
        seen.append(job.seconds_left)

    job = finish(jobs.submit("compare", "comparing", "x", work))
    assert seen[0] is None
    assert seen[1] == pytest.approx(30.0, abs=0.5)  # a quarter took ten seconds
    assert job.message == "sampling" and job.seconds_left is None


def test_the_newest_job_of_a_kind_is_found():
    jobs = JobRegistry()
    finish(jobs.submit("train", "one", "a", lambda job: None))
    second = finish(jobs.submit("train", "two", "b", lambda job: None))
    assert jobs.find("train") is second
    assert jobs.find("train", "a").title == "one"
    assert jobs.find("compare") is None


def wait_behind(jobs, names):
    """(the gate that lets the first job end, jobs that wait behind it, what ran so far)."""
    gate, ran = threading.Event(), []
    first = jobs.submit("train", "training", "first", lambda job: gate.wait(10))
    while first.state != "running":
        time.sleep(0.001)
    waiting = [jobs.submit("train", f"training {name}", name, lambda job: ran.append(job.key)) for name in names]
    return gate, waiting, ran


def test_what_stands_changes_when_a_job_comes_begins_and_ends_however_quick_it_was():
    jobs, begun, go_on = JobRegistry(), threading.Event(), threading.Event()
    stood = [jobs.standing()]

    def work(job) -> None:
        begun.set()
        go_on.wait(10)

    slow = jobs.submit("train", "training a", "a", work)
    assert begun.wait(10)
    stood.append(jobs.standing())
    quick = jobs.submit("export", "exporting a", "a", lambda job: None)
    stood.append(jobs.standing())
    go_on.set()
    assert slow.finished.wait(10) and quick.finished.wait(10)
    stood.append(jobs.standing())
    assert stood == [
        (),
        (("train", "a", "running"),),
        (("train", "a", "running"), ("export", "a", "queued")),
        (("train", "a", "done"), ("export", "a", "done")),
    ]


def test_a_waiting_job_can_be_taken_out_of_the_queue_and_asked_for_again():
    jobs = JobRegistry()
    gate, (one, two), ran = wait_behind(jobs, "ab")
    assert jobs.cancel(one)
    assert one.state == "stopped" and one.finished.is_set() and jobs.active()[1:] == [two]
    assert not jobs.cancel(one) and not jobs.cancel(jobs.current())
    again = jobs.submit("train", "training a", "a", lambda job: ran.append("again"))
    gate.set()
    finish(again)
    assert ran == ["b", "again"]


def test_waiting_jobs_run_in_the_order_they_are_moved_to():
    jobs = JobRegistry()
    gate, (a, b, c), ran = wait_behind(jobs, "abc")
    assert jobs.move(c, -1) and jobs.active()[1:] == [a, c, b]
    assert jobs.move(a, 9) and jobs.active()[1:] == [c, b, a]
    assert jobs.move(b, -9) and jobs.active()[1:] == [b, c, a]
    assert not jobs.move(jobs.current(), 1)
    gate.set()
    for job in (a, b, c):
        finish(job)
    assert ran == ["b", "c", "a"]
    assert not jobs.move(a, -1) and jobs.active() == []
