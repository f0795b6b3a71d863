from dpo.events import (
    CheckpointSaved,
    Note,
    RunEnded,
    RunStarted,
    StepEnd,
    ValidationEnd,
    append_event,
    read_events,
    read_new_events,
)

SENT = [
    RunStarted(0, 10, 4, 1),
    Note(0, "Preparing images", 3, 8),
    StepEnd(1, 0.5, {"loss": 0.69}),
    ValidationEnd(1, {"loss": 0.7}),
    CheckpointSaved(1, "x"),
    RunEnded(1, "stopped", "Zwölf 🙂"),
]


def write(path, events):
    for event in events:
        append_event(path, event)


def test_events_survive_the_file(tmp_path):
    write(tmp_path / "events.jsonl", SENT)
    assert list(read_events(tmp_path / "events.jsonl")) == SENT


def test_a_file_that_is_not_there_yet_has_no_events(tmp_path):
    assert list(read_events(tmp_path / "events.jsonl")) == []


def test_a_line_still_being_written_is_left_for_later_and_a_torn_one_costs_only_itself(tmp_path):
    path = tmp_path / "events.jsonl"
    write(path, SENT[:3])
    with path.open("a") as file:
        file.write('{"type": "StepEnd", "st')
    assert list(read_events(path)) == SENT[:3]
    write(path, SENT[3:])
    assert list(read_events(path)) == SENT


def test_a_resumed_run_supersedes_what_came_after_its_checkpoint(tmp_path):
    path = tmp_path / "events.jsonl"
    steps = [StepEnd(step, 0.1, {"loss": float(step)}) for step in (1, 2, 3, 4)]
    again = [StepEnd(step, 0.1, {"loss": -float(step)}) for step in (3, 4)]
    write(path, [RunStarted(0, 4, 8, 0), *steps, RunEnded(4, "stopped"), RunStarted(2, 4, 8, 0), *again])
    assert list(read_events(path)) == [RunStarted(0, 4, 8, 0), *steps[:2], RunStarted(2, 4, 8, 0), *again]


def test_a_line_of_a_newer_version_is_skipped(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "Fireworks", "step": 1}\n[1]\n')
    write(path, SENT[:1])
    assert list(read_events(path)) == SENT[:1]


def test_following_reads_each_line_once_and_leaves_one_that_is_still_being_written(tmp_path):
    path = tmp_path / "events.jsonl"
    assert read_new_events(path, 0) == ([], 0)
    append_event(path, StepEnd(5, 0.1))
    found, place = read_new_events(path, 0)
    assert found == [StepEnd(5, 0.1)]
    append_event(path, RunStarted(3, 9, 4, 0))
    with path.open("ab") as file:
        file.write(b'{"type": "Note", "step": 3, ')
    found, place = read_new_events(path, place)
    assert found == [RunStarted(3, 9, 4, 0)]  # what it supersedes has been told already
    with path.open("ab") as file:
        file.write(b'"message": "Loading"}\n')
    assert read_new_events(path, place) == ([Note(3, "Loading")], path.stat().st_size)
