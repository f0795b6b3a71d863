import pytest

from dpo.config import TrainConfig
from dpo.events import Note, RunEnded, RunStarted, StepEnd, ValidationEnd
from dpo.pairs import Pair
from dpo.runs import RunError, create_run, find_run, list_runs, record, suggest_run_name

PAIRS = [Pair(f"prompt {i}", f"{i}a.png", f"{i}b.png", 0.9) for i in range(4)]


def test_a_run_keeps_its_settings_and_its_own_copy_of_the_pairs(tmp_path):
    config = TrainConfig(max_steps=3)
    run = create_run(tmp_path, "cats", config, PAIRS)
    assert find_run(tmp_path, "cats").config == config
    assert run.pairs == PAIRS


def test_fewer_than_four_pairs_are_refused_with_the_number(tmp_path):
    with pytest.raises(RunError, match=r"^There are 3 pairs and training needs at least 4. Pick a few more in Pairs.$"):
        create_run(tmp_path, "cats", TrainConfig(), PAIRS[:3])
    assert not (tmp_path / "cats").exists()


def test_a_name_that_is_taken_or_would_leave_the_folder_is_refused(tmp_path):
    create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    with pytest.raises(RunError, match="A run named 'cats' exists already"):
        create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    for name in ("../cats", "", "a/b", ".hidden", "x" * 81):
        with pytest.raises(RunError, match="cannot be a run's name"):
            create_run(tmp_path, name, TrainConfig(), PAIRS)


def test_a_full_disk_leaves_no_half_made_run(tmp_path, monkeypatch):
    def refuse(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrainConfig, "save", refuse)
    with pytest.raises(RunError, match=r"cannot be written: No space left on device. Free some space"):
        create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert not (tmp_path / "cats").exists()


def test_names_are_suggested_with_the_next_free_number(tmp_path):
    assert suggest_run_name(tmp_path, "my cats!") == "my-cats-1"
    create_run(tmp_path, "my-cats-1", TrainConfig(), PAIRS)
    assert suggest_run_name(tmp_path, "my cats!") == "my-cats-2"


def test_record_writes_events_and_tensorboard_and_the_status_tells_what_they_say(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert run.status().state == "new"
    revision = run.revision()
    events = [
        RunStarted(0, 10, 3, 1),
        Note(0, "Loading"),
        StepEnd(1, 2.0, {"loss": 0.7, "rewards/accuracies": 0.0}),
        StepEnd(2, 4.0, {"loss": 0.6, "rewards/accuracies": 1.0}),
        ValidationEnd(2, {"rewards/accuracies": 0.75}),
    ]
    assert record(run, iter(events)).reason == "failed"  # it ended without saying why
    status = run.status()
    assert (status.state, status.step, status.total_steps, status.num_pairs) == ("running", 2, 10, 3)
    assert status.seconds_per_step == 3.0 and status.seconds_left == 24.0
    assert status.accuracy == 0.75
    assert run.last_metric("loss") == 0.6
    assert run.revision() != revision

    end = RunEnded(2, "stopped", "Stopped after step 2.")
    assert record(run, iter([end])) == end
    assert (run.status().state, run.status().message) == ("stopped", "Stopped after step 2.")

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.tensorboard)).Reload()
    assert [scalar.value for scalar in board.Scalars("train/loss")] == pytest.approx([0.7, 0.6])
    assert [scalar.step for scalar in board.Scalars("validation/rewards/accuracies")] == [2]


def test_runs_are_listed_newest_first_and_an_unknown_one_names_those_there_are(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []
    for name in ("one", "two"):
        create_run(tmp_path, name, TrainConfig(), PAIRS)
    import os

    os.utime(tmp_path / "one" / "config.json", (2e9, 2e9))
    assert [run.name for run in list_runs(tmp_path)] == ["one", "two"]
    with pytest.raises(RunError, match="no run named 'three' in .* There are: one, two."):
        find_run(tmp_path, "three")
