"""What a run leaves behind is read back with the readers that people use: TensorBoard's own, wandb's and trackio's files."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from dpo.config import TrainConfig
from dpo.events import Note, ProbeEnd, RunEnded, RunStarted, SamplesSaved, StepEnd, ValidationEnd
from dpo.pairs import Pair
from dpo.records import record, scalars
from dpo.runs import RunError, create_run

BETA = 8.0
LOGRATIOS = {"logratios/chosen": 0.25, "logratios/rejected": -0.5}
METRICS = {
    "loss": 0.75, "loss/preference": 0.5, **LOGRATIOS,
    "rewards/chosen": BETA * 0.25, "rewards/rejected": BETA * -0.5, "rewards/margins": BETA * 0.75, "rewards/accuracies": 0.875,
    "errors/policy": 0.125, "errors/reference": 0.0625, "errors/chosen_drift": -0.25, "margins/quartile_1": 1.5,
    "margins/quartile_4": 3.0, "grad_norm": 0.375, "learning_rate": 2.0**-10, "beta": BETA,
}  # fmt: skip
# The tags of the seed document, with its meaning: what is called a reward there is not scaled by beta.
SEED_TAGS = {
    "loss/train_step": 0.75, "loss/dpo": 0.75, "dpo/raw_loss": 0.5, "dpo/chosen_reward": 0.25, "dpo/rejected_reward": -0.5,
    "dpo/accuracy": 0.875,
}  # fmt: skip
SEED_VALIDATION_TAGS = {
    "dpo/val_loss": 0.5, "dpo/val_accuracy": 0.875, "dpo/val_chosen_reward": 0.25, "dpo/val_rejected_reward": -0.5,
}  # fmt: skip
OTHER_TAGS = {
    "rewards/chosen": 2.0, "rewards/rejected": -4.0, "rewards/margins": 6.0, "rewards/accuracies": 0.875,
    "raw_model_loss": 0.125, "raw_ref_loss": 0.0625, "grad_norm": 0.375, "learning_rate": 2.0**-10, "beta": BETA,
    "errors/chosen_drift": -0.25, "margins/quartile_1": 1.5, "margins/quartile_4": 3.0,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    pairs = [Pair(f"prompt {i}", f"{i}a.png", f"{i}b.png") for i in range(4)]
    return create_run(tmp_path, "cats", TrainConfig(beta=BETA), pairs)


def read_back(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run.tensorboard)).Reload()


def scalars_of(board):
    return {tag: [(scalar.step, scalar.value) for scalar in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def test_the_tags_of_the_seed_and_of_trl_are_in_the_event_file_with_their_values(run):
    events = [RunStarted(0, 2, 3, 1), StepEnd(1, 0.5, METRICS), ValidationEnd(1, METRICS), RunEnded(1, "stopped")]
    record(run, iter(events), run.config)
    found = scalars_of(read_back(run))
    for tag, value in {**SEED_TAGS, **SEED_VALIDATION_TAGS, **OTHER_TAGS}.items():
        assert found[tag] == [(1, value)], tag
    assert found["validation/rewards/margins"] == [(1, 6.0)]
    assert run.events() == events


def test_a_loss_without_a_reference_has_no_tag_of_one():
    tags = scalars(StepEnd(1, 0.5, {"loss": 0.5, "loss/preference": 0.5, "errors/policy": 0.25}))
    assert tags == {"loss/train_step": 0.5, "loss/dpo": 0.5, "dpo/raw_loss": 0.5, "raw_model_loss": 0.25}


def test_what_a_probe_measured_has_tags_of_its_own():
    assert scalars(ProbeEnd(0, {"beta": 300.0})) == {"probe/beta": 300.0}
    assert scalars(Note(0, "Loading")) == {}


def test_a_resumed_run_takes_back_what_it_did_after_its_checkpoint(run):
    steps = [StepEnd(step, 0.5, {"loss": float(step)}) for step in (1, 2, 3, 4)]
    record(run, iter([RunStarted(0, 4, 3, 0), *steps, RunEnded(4, "stopped")]), run.config)
    again = [StepEnd(step, 0.5, {"loss": -float(step)}) for step in (3, 4)]
    record(run, iter([Note(2, "Loading"), RunStarted(2, 4, 3, 0), *again, RunEnded(4, "finished")]), run.config)
    assert scalars_of(read_back(run))["loss/dpo"] == [(1, 1.0), (2, 2.0), (3, -3.0), (4, -4.0)]


def paint(folder, name, level):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 2), (level, 0, 0)).save(folder / name)


def test_sample_pictures_stand_in_the_event_file_base_beside_policy(run):
    paint(run.base_samples, "000-1.png", 10)
    paint(run.samples / "step-000002", "000-1.png", 200)
    events = [RunStarted(0, 2, 3, 1), SamplesSaved(2, str(run.samples / "step-000002")), RunEnded(2, "finished")]
    record(run, iter(events), run.config)
    (picture,) = read_back(run).Images("samples/000-1")
    pixels = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
    assert picture.step == 2 and pixels.shape == (2, 8, 3)
    assert pixels[0, 0, 0] == 10 and pixels[0, 7, 0] == 200


def test_a_run_that_is_trained_already_is_refused_and_nothing_is_written(run):
    def training():
        yield RunStarted(0, 2, 3, 1)
        with pytest.raises(RunError, match=r"^cats is being trained already, perhaps by another process. Stop it there first.$"):
            record(run, iter([RunEnded(0, "finished")]), run.config)
        yield RunEnded(0, "stopped")

    assert not run.is_held
    record(run, training(), run.config)
    assert [type(event) for event in run.events()] == [RunStarted, RunEnded]
    assert not run.is_held


# ------------------------------------------------------------------------------------------------ trackers


class Recorder(types.ModuleType):
    """Stands in for wandb and trackio, as far as their interfaces agree."""

    def __init__(self, name):
        super().__init__(name)
        self.asked, self.logged, self.is_finished = {}, [], False

    def init(self, **asked):
        self.asked = asked
        return self

    def define_metric(self, *_, **__):
        pass

    def Image(self, picture):
        return picture.shape

    def log(self, values, step=None):
        self.logged.append(values if step is None else {"step": step, **values})

    def finish(self):
        self.is_finished = True


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_the_same_tags_and_pictures_under_a_name_that_lasts(run, monkeypatch, name):
    asked = []
    for step in (0, 1):
        tracker = Recorder(name)
        monkeypatch.setitem(sys.modules, name, tracker)
        paint(run.samples / "step-000002", "000-1.png", 200)
        samples = SamplesSaved(step + 1, str(run.samples / "step-000002"))
        events = [RunStarted(step, 2, 3, 1), StepEnd(step + 1, 0.5, METRICS), samples, RunEnded(step + 1, "finished")]
        record(run, iter(events), TrainConfig(beta=BETA, tracker=name))
        assert tracker.logged[0] == {"step": step + 1, **SEED_TAGS, **OTHER_TAGS}
        assert tracker.logged[1] == {"step": step + 1, "samples/000-1": (2, 4, 3)}
        assert tracker.is_finished and tracker.asked["config"]["beta"] == BETA
        asked.append(tracker.asked)
    assert asked[0] == asked[1] and asked[0]["resume"] == "allow"


def test_a_tracker_that_cannot_be_reached_is_a_warning_and_the_run_goes_on(run, monkeypatch):
    tracker = Recorder("wandb")
    tracker.init = lambda **_: (_ for _ in ()).throw(ConnectionError("no network"))
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    end = record(run, iter([RunStarted(0, 2, 3, 1), RunEnded(2, "finished")]), TrainConfig(tracker="wandb"))
    (note,) = [event for event in run.events() if isinstance(event, Note)]
    assert end.reason == "finished" and note.tone == "warning"
    assert note.message == "wandb does not take this run: ConnectionError: no network. Training goes on without it."


@pytest.mark.slow
def test_wandb_itself_takes_a_run_offline(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    paint(run.samples / "step-000002", "000-1.png", 200)
    events = [
        RunStarted(0, 2, 3, 1), StepEnd(1, 0.5, METRICS), SamplesSaved(1, str(run.samples / "step-000002")),
        RunEnded(1, "finished"),
    ]  # fmt: skip
    assert record(run, iter(events), TrainConfig(tracker="wandb")).reason == "finished"
    assert not [event for event in run.events() if isinstance(event, Note)]
    (file,) = run.path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"dpo/chosen_reward" in file.read_bytes()


@pytest.mark.slow
def test_trackio_itself_takes_a_run(run, monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    events = [RunStarted(0, 2, 3, 1), StepEnd(1, 0.5, METRICS), RunEnded(1, "finished")]
    assert record(run, iter(events), TrainConfig(tracker="trackio")).reason == "finished"
    assert not [event for event in run.events() if isinstance(event, Note)]
    assert b"dpo/chosen_reward" in b"".join(path.read_bytes() for path in (tmp_path / "trackio").glob("image-dpo.db*"))
