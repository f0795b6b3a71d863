import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from dpo.config import ConfigError, TrainConfig
from dpo.events import Note, RunEnded, RunStarted, SamplesSaved, StepEnd, ValidationEnd
from dpo.pairs import Like, Pair, Ranking
from dpo.records import record
from dpo.runs import (
    UNFINISHED,
    RunError,
    clone_config,
    create_run,
    delete_run,
    find_run,
    list_runs,
    suggest_run_name,
)

PAIRS = [Pair(f"prompt {i}", f"{i}a.png", f"{i}b.png", 0.9) for i in range(4)]


def test_a_run_keeps_its_settings_and_its_own_copy_of_the_pairs(tmp_path):
    config = TrainConfig(max_steps=3)
    run = create_run(tmp_path, "cats", config, PAIRS)
    assert find_run(tmp_path, "cats").config == config
    assert run.items == PAIRS


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
    def refuse(config, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpo.runs.save_config", refuse)
    with pytest.raises(RunError, match=r"cannot be written: No space left on device. Free some space"):
        create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert not (tmp_path / "cats").exists()


def test_names_are_suggested_with_the_next_free_number(tmp_path):
    assert suggest_run_name(tmp_path, "my cats!") == "my-cats-1"
    create_run(tmp_path, "my-cats-1", TrainConfig(), PAIRS)
    assert suggest_run_name(tmp_path, "my cats!") == "my-cats-2"


def test_the_status_tells_what_the_events_say(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert run.status().state == "new"
    revision = run.revision()
    events = [
        RunStarted(0, 10, 3, 1),
        Note(0, "Loading"),
        StepEnd(1, 2.0, {"loss": 0.7, "rewards/accuracies": 0.0}),
        StepEnd(2, 4.0, {"loss": 0.6, "rewards/accuracies": 1.0}),
        ValidationEnd(2, {"rewards/accuracies": 0.75}),
        SamplesSaved(2, "samples/step-000002"),
    ]
    assert record(run, iter(events), run.config).reason == "failed"  # it ended without saying why
    status = run.status()
    assert (status.state, status.step, status.total_steps, status.num_pairs) == ("running", 2, 10, 3)
    assert status.seconds_per_step == 3.0 and status.seconds_left == 24.0
    assert status.accuracy == 0.75 and status.samples == "samples/step-000002"
    assert run.last_metric("loss") == 0.6
    assert run.revision() != revision

    end = RunEnded(2, "stopped", "Stopped after step 2.")
    assert record(run, iter([end]), run.config) == end
    assert (run.status().state, run.status().message) == ("stopped", "Stopped after step 2.")


def test_a_run_that_is_told_to_wait_is_paused_until_it_is_told_to_go_on(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    run.append(RunStarted(0, 10, 3, 1))
    assert not run.pause_requested() and run.status().state == "running"
    run.request_pause()
    assert run.pause_requested() and run.status().state == "paused"
    run.clear_pause()
    assert run.status().state == "running"
    run.request_pause()
    run.append(RunEnded(0, "stopped"))
    assert run.status().state == "stopped"


def test_runs_are_listed_newest_first_and_an_unknown_one_names_those_there_are(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []
    for name in ("one", "two"):
        create_run(tmp_path, name, TrainConfig(), PAIRS)
    os.utime(tmp_path / "one" / "config.json", (2e9, 2e9))
    assert [run.name for run in list_runs(tmp_path)] == ["one", "two"]
    with pytest.raises(RunError, match="no run named 'three' in .* There are: one, two."):
        find_run(tmp_path, "three")


def test_a_run_made_after_the_clock_was_put_back_is_the_newest_all_the_same(tmp_path):
    for name in ("one", "two"):
        create_run(tmp_path, name, TrainConfig(), PAIRS)
    os.utime(tmp_path / "one" / "config.json", (2e9, 2e9))
    made = [create_run(tmp_path, name, TrainConfig(), PAIRS).made for name in ("three", "four")]
    assert [run.name for run in list_runs(tmp_path)] == ["four", "three", "one", "two"] and len(set(made)) == 2


def test_a_run_says_from_which_checkpoint_a_resume_goes_on(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert run.resume_words == "Resume starts it again: there is no checkpoint yet."
    for name in ("step-000002.pt", "step-000010.pt", "step-000011.partial", "best.pt"):
        (run.checkpoints / name).touch()
    assert run.resume_words == "Resume goes on from the checkpoint of step 10."


def test_a_run_of_likes_and_rankings_keeps_them_and_says_what_is_missing(tmp_path):
    items = [Like("a cat", f"{number}.png", number % 2 == 0) for number in range(3)] + [Ranking("a dog", ("a", "b", "c"))]
    run = create_run(tmp_path, "likes", TrainConfig(loss="kto"), items)
    assert run.items == items
    with pytest.raises(RunError, match="^There are 2 likes and training needs at least 4. "):
        create_run(tmp_path, "few", TrainConfig(loss="kto"), items[:2])


def test_pairs_of_a_run_of_an_older_version_are_read(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    old = [{"prompt": "a", "chosen": "b", "rejected": "c", "confidence": 0.9, "source": "duel"}]
    (run.path / "pairs.json").write_text(json.dumps(old))
    assert run.items == [Pair("a", "b", "c", 0.9, "duel")]


def test_prompts_held_out_are_remembered(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert run.held_out == []
    run.hold_out(["eine Katze", "a dog"])
    assert find_run(tmp_path, "cats").held_out == ["eine Katze", "a dog"]
    (run.path / "held_out.json").write_text('["eine Ka')
    with pytest.raises(RunError, match="held_out.json cannot be read.*Resume the run"):
        _ = run.held_out


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", '{"beta":', "config.json cannot be read as settings"),
        ("config.json", "[]", "config.json holds no settings but a list"),
        ("config.json", '{"colour": 1}', "config.json: colour is not a setting of this version"),
        ("config.json", '{"beta": 0}', "beta=0 is too small"),
        ("pairs.json", '[{"prompt', "pairs.json cannot be read"),
        ("pairs.json", '[{"kind": "song"}]', "pairs.json cannot be read"),
        ("pairs.json", "7", "pairs.json cannot be read"),
    ],
)
def test_a_damaged_run_stays_in_the_list_and_says_what_is_wrong(tmp_path, file, content, says):
    good = create_run(tmp_path, "good", TrainConfig(), PAIRS)
    broken = create_run(tmp_path, "broken", TrainConfig(), PAIRS)
    assert broken.problem == ""
    (broken.path / file).write_text(content)
    assert {run.name: bool(run.problem) for run in list_runs(tmp_path)} == {"good": False, "broken": True}
    assert says in broken.problem and len(broken.problem.splitlines()) == 1
    assert broken.status().state == "new"
    assert good.config == TrainConfig()
    delete_run(broken)
    assert list_runs(tmp_path) == [good]


# ------------------------------------------------------------------------------------------------ clone and delete


def test_a_clone_of_a_runs_settings_differs_in_what_is_asked_for_and_leaves_the_run_as_it_is(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(beta=300.0, max_steps=9), PAIRS)
    assert clone_config(run) == run.config
    assert clone_config(run, beta=600.0) == TrainConfig(beta=600.0, max_steps=9) and run.config.beta == 300.0
    with pytest.raises(ConfigError, match="beta=0.0 is too small"):
        clone_config(run, beta=0.0)


def test_a_run_that_is_being_trained_is_never_deleted(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    going, end = threading.Event(), threading.Event()

    def events():
        yield RunStarted(0, 10, 3, 1)
        going.set()
        end.wait(10)
        yield RunEnded(0, "stopped")

    thread = threading.Thread(target=record, args=(run, events(), run.config))
    thread.start()
    assert going.wait(10) and run.is_held
    with pytest.raises(RunError, match="^cats is being trained already, perhaps by another process. Stop it there first.$"):
        delete_run(run)
    assert run.path.exists()
    end.set()
    thread.join()
    delete_run(run)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="is not there any more"):
        delete_run(run)


def test_a_run_trained_by_another_process_is_held_until_that_process_is_killed(tmp_path):
    run = create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    program = (
        "import sys, time, pathlib; from dpo.runs import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).held():\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(run.path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert run.is_held
        with pytest.raises(RunError, match="perhaps by another process"), run.held():
            pass
        process.kill()
    assert not run.is_held
    with run.held():
        pass


# ------------------------------------------------------------------------------------------------ sudden ends


def test_a_run_appears_under_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    seen = []
    rename = os.rename

    def watch(source, target, **options):
        if os.fspath(target) == str(tmp_path / "cats"):
            seen.append((list_runs(tmp_path), sorted(path.name for path in os.scandir(source))))
        return rename(source, target, **options)

    monkeypatch.setattr(os, "rename", watch)
    create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert seen == [([], ["adapter", "checkpoints", "config.json", "pairs.json", "tensorboard"])]


def test_a_process_killed_at_any_moment_of_making_a_run_leaves_a_whole_run_or_none(tmp_path):
    """The process ends itself, as kill -9 does, at its n-th call of a function that changes the disk, for every n."""
    program = """
import os, sys, pathlib
from dpo.config import TrainConfig
from dpo.pairs import Pair
from dpo.runs import create_run
calls = 0
def mortal(function):
    def call(*args, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os._exit(9)
        return function(*args, **options)
    return call
for name in ("mkdir", "rename", "replace", "fsync", "chmod", "write"):
    setattr(os, name, mortal(getattr(os, name)))
create_run(pathlib.Path(sys.argv[1]), "cats", TrainConfig(max_steps=3), [Pair(str(i), "a", "b") for i in range(4)])
print(calls)
"""
    for number in range(1, 100):
        runs = tmp_path / str(number)
        result = subprocess.run([sys.executable, "-c", program, str(runs), str(number)], capture_output=True, text=True)
        found = list_runs(runs)
        for run in found:
            assert run.problem == "" and run.config.max_steps == 3 and len(run.items) == 4
        if result.returncode == 0:
            break
        assert result.returncode == 9, result.stderr
        if not found:
            assert create_run(runs, "cats", TrainConfig(), PAIRS).items == PAIRS
    assert number > 8 and len(found) == 1, "the deaths were not where the work is"


def test_what_a_killed_process_left_is_cleared_away_later(tmp_path):
    old, young = tmp_path / f"{UNFINISHED}old", tmp_path / f"{UNFINISHED}young"
    for path in (old, young):
        path.mkdir()
        (path / "config.json").write_text("{}")
    os.utime(old, (time.time() - 7200,) * 2)
    assert list_runs(tmp_path) == []
    create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert not old.exists() and young.exists()


def test_of_two_processes_that_take_the_same_name_one_is_refused(tmp_path, monkeypatch):
    def slower(config, path):
        shutil.copytree(tmp_path / "first", tmp_path / "cats")

    create_run(tmp_path, "first", TrainConfig(), PAIRS)
    monkeypatch.setattr("dpo.runs.save_config", slower)
    with pytest.raises(RunError, match="A run named 'cats' exists already"):
        create_run(tmp_path, "cats", TrainConfig(), PAIRS)
    assert find_run(tmp_path, "cats").items == PAIRS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cats", "first"]
