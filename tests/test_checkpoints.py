import os

import pytest
import torch

from dpo.checkpoints import CheckpointError, Checkpoints
from dpo.config import TrainConfig
from dpo.runs import create_run
from tests.tiny import make_pairs


class Part:
    def __init__(self, value: float = 0.0):
        self.value = torch.tensor(value)

    def state_dict(self) -> dict:
        return {"value": self.value.clone()}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", "run", TrainConfig(), make_pairs(tmp_path / "images"))


@pytest.fixture
def part():
    return Part()


@pytest.fixture
def checkpoints(run, part):
    return Checkpoints(run, 2, {"part": part})


def save_all(checkpoints, part, steps) -> None:
    for step in steps:
        part.value = torch.tensor(float(step))
        checkpoints.save(step)


def names(run) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_a_run_without_checkpoints_starts_at_step_0(checkpoints, part):
    assert checkpoints.load_newest() == (0, [])
    assert checkpoints.load_best("part") == 0


def test_the_newest_is_loaded_and_only_the_asked_number_is_kept(checkpoints, part, run):
    save_all(checkpoints, part, [9, 10, 100])
    part.value = torch.tensor(-1.0)
    assert checkpoints.load_newest() == (100, [])
    assert part.value == 100
    assert names(run) == ["step-000010.pt", "step-000100.pt"]


def test_the_best_is_kept_beside_the_newest_and_can_be_loaded_in_part(run):
    adapter, optimizer = Part(1.0), Part(1.0)
    checkpoints = Checkpoints(run, 1, {"adapter": adapter, "optimizer": optimizer})
    checkpoints.save_best(3)
    adapter.value = optimizer.value = torch.tensor(2.0)
    checkpoints.save(5)
    assert checkpoints.load_best("adapter") == 3
    assert (adapter.value, optimizer.value) == (1.0, 2.0)


def test_a_torn_checkpoint_falls_back_to_the_one_before_and_says_so(checkpoints, part, run):
    save_all(checkpoints, part, [1, 2])
    newest = run.checkpoints / "step-000002.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    step, problems = checkpoints.load_newest()
    assert (step, part.value) == (1, 1.0)
    assert len(problems) == 1 and problems[0].startswith("step-000002.pt cannot be read")


def test_a_flipped_bit_which_pytorch_would_load_without_a_word_is_found(checkpoints, part, run):
    save_all(checkpoints, part, [1, 2])
    checkpoints.save_best(2)
    for path in (run.checkpoints / "step-000002.pt", run.best):
        flip_a_bit_of_the_value(path)
        assert torch.load(path)["part"]["value"] != 2.0
    step, problems = checkpoints.load_newest()
    assert (step, part.value) == (1, 1.0)
    assert problems == [
        "step-000002.pt cannot be read (archive/data/0 in it is damaged): step-000001.pt, the checkpoint before it, is used."
    ]
    assert checkpoints.load_best("part") == 0 and part.value == 1.0
    flip_a_bit_of_the_value(run.checkpoints / "step-000001.pt")
    step, problems = checkpoints.load_newest()
    assert step == 0 and problems[-1].endswith("in it is damaged): the run begins anew.") and part.value == 1.0


def flip_a_bit_of_the_value(path):
    data = path.read_bytes()
    value = next(value for value in (2.0, 1.0) if torch.tensor(value).numpy().tobytes() in data)
    place = data.index(torch.tensor(value).numpy().tobytes())
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def test_a_disk_that_refuses_leaves_what_was_saved_before(checkpoints, part, run, monkeypatch):
    save_all(checkpoints, part, [1])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"checkpoint of step 2 cannot be written .*No space left.* Free some space"):
        save_all(checkpoints, part, [2])
    assert names(run) == ["step-000001.pt"]
    assert checkpoints.load_newest() == (1, [])


def test_what_has_the_name_of_a_checkpoint_is_whole_and_on_the_disk_at_every_moment(checkpoints, part, run, monkeypatch):
    """Also where it replaces another: the best one before, or that of a step which a run came to twice."""
    seen, sync = [], os.fsync

    def look(descriptor):
        seen.append({path.name: torch.load(path)["part"]["value"].item() for path in run.checkpoints.glob("*.pt")})
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    for value in (1.0, 2.0):
        part.value = torch.tensor(value)
        checkpoints.save(7)
        checkpoints.save_best(7)
    assert seen == [
        {},
        {"step-000007.pt": 1.0},
        {"step-000007.pt": 1.0, "best.pt": 1.0},
        {"step-000007.pt": 2.0, "best.pt": 1.0},
    ]


def test_going_back_without_a_best_takes_the_newest_of_at_most_the_last_good_step(run, part):
    checkpoints = Checkpoints(run, 5, {"part": part})
    save_all(checkpoints, part, [10, 20, 30])
    assert checkpoints.roll_back(last_good=25) == 20
    assert part.value == 20
    assert names(run) == ["step-000010.pt", "step-000020.pt"]  # a resume goes on from there


def test_going_back_to_the_best_leaves_nothing_later_to_resume(run, part):
    checkpoints = Checkpoints(run, 5, {"part": part})
    save_all(checkpoints, part, [10])
    part.value = torch.tensor(15.0)
    checkpoints.save_best(15)
    save_all(checkpoints, part, [20, 30])
    assert checkpoints.roll_back(last_good=25) == 15
    part.value = torch.tensor(-1.0)
    assert checkpoints.load_newest() == (15, [])
    assert part.value == 15


def test_going_back_where_nothing_was_good_yet_says_0(run, part):
    checkpoints = Checkpoints(run, 5, {"part": part})
    save_all(checkpoints, part, [10])
    assert checkpoints.roll_back(last_good=4) == 0
    assert names(run) == []
