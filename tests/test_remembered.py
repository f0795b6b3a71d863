import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig

from dpo.config import TrainConfig
from dpo.families import load_family
from dpo.fingerprints import weights_digest
from dpo.remembered import RECORD, RememberedError, RememberedErrors, fingerprint
from tests.tiny import build_pipeline

ROOT = Path(__file__).resolve().parent.parent
keys = st.text(max_size=8)
errors = st.floats(width=32, allow_nan=False, allow_infinity=False)


def written(folder: Path, entries: dict[str, float]) -> Path:
    memory = RememberedErrors(folder, "a")
    memory.put(list(entries), list(entries.values()))
    memory.flush()
    return folder / "a.errors"


def numbered(count: int, start: int = 0) -> dict[str, float]:
    return {f"key {number}": float(number) for number in range(start, start + count)}


@settings(deadline=None)  # it writes files
@given(st.dictionaries(keys, errors, min_size=1))
def test_an_error_comes_back_to_the_last_bit_in_this_run_and_the_next(tmp_path_factory, entries):
    memory = RememberedErrors(tmp_path_factory.mktemp("cache"), "a")
    memory.put(list(entries), list(entries.values()))
    bits = struct.pack(f"{len(entries)}f", *entries.values())
    assert struct.pack(f"{len(entries)}f", *memory.get(list(entries))) == bits
    memory.flush()
    later = RememberedErrors(memory._path.parent, "a")
    assert struct.pack(f"{len(entries)}f", *later.get(list(entries))) == bits


def test_what_is_put_is_rounded_to_float32_at_once_so_that_no_run_can_tell_who_computed_it(tmp_path):
    memory = RememberedErrors(tmp_path, "a")
    memory.put(["key"], [0.1])
    assert memory.get(["key"]) == [struct.unpack("f", struct.pack("f", 0.1))[0]] != [0.1]


def test_one_unknown_key_of_several_makes_all_of_them_unknown(tmp_path):
    memory = RememberedErrors(tmp_path, "a")
    memory.put(["one", "two"], [1.0, 0.0])
    assert memory.get(["one", "two"]) == [1.0, 0.0]
    assert memory.get(["one", "two", "three"]) is None
    assert memory.get([]) == []


def test_an_error_that_is_not_finite_is_not_remembered(tmp_path):
    memory = RememberedErrors(tmp_path, "a")
    memory.put(["nan", "inf", "one"], [float("nan"), float("inf"), 1.0])
    assert memory.get(["nan"]) is None and memory.get(["inf"]) is None and memory.get(["one"]) == [1.0]


def test_a_flush_writes_once_however_much_was_put_and_never_without_need(tmp_path, monkeypatch):
    opened = []

    def counting(file, mode="r", *args, **kwargs):
        opened.append(mode)
        return open(file, mode, *args, **kwargs)

    monkeypatch.setattr("dpo.remembered.open", counting, raising=False)
    memory = RememberedErrors(tmp_path, "a")
    for key, error in numbered(1000).items():
        memory.put([key], [error])
    assert opened.count("ab") == 0
    memory.flush()
    memory.flush()
    assert opened.count("ab") == 1
    assert (tmp_path / "a.errors").stat().st_size == 1000 * RECORD.itemsize


@settings(deadline=None)  # it writes files
@given(st.integers(0, 10 * 24), st.binary(max_size=60))
def test_a_torn_tail_costs_the_torn_record_and_nothing_that_is_appended_behind_it(tmp_path_factory, cut, dirt):
    path = written(tmp_path_factory.mktemp("cache"), numbered(10))
    before = path.read_bytes()
    torn = before[:cut] + dirt
    path.write_bytes(torn)
    starts = range(0, len(before), RECORD.itemsize)  # the dirt may be the very byte that was cut off
    whole = sum(torn[start : start + RECORD.itemsize] == before[start : start + RECORD.itemsize] for start in starts)
    written(path.parent, numbered(5, start=20))
    memory = RememberedErrors(path.parent, "a")
    known = [name for name in numbered(30) if memory.get([name])]
    assert known == [*numbered(whole), *numbered(5, start=20)]


@settings(deadline=None)  # it writes files
@given(st.integers(0, 239), st.integers(1, 255))
def test_a_damaged_byte_costs_its_record_alone(tmp_path_factory, place, change):
    path = written(tmp_path_factory.mktemp("cache"), numbered(10))
    data = bytearray(path.read_bytes())
    data[place] ^= change
    path.write_bytes(data)
    memory = RememberedErrors(path.parent, "a")
    for number, (name, error) in enumerate(numbered(10).items()):
        assert memory.get([name]) == (None if number == place // RECORD.itemsize else [error])


def test_zeros_where_a_crash_left_them_are_no_records(tmp_path):
    path = written(tmp_path, numbered(10))
    path.write_bytes(path.read_bytes() + bytes(1_000_000))
    written(tmp_path, numbered(10, start=10))
    memory = RememberedErrors(tmp_path, "a")
    assert len(memory) == 20 and memory.get(list(numbered(20))) == list(numbered(20).values())


def test_two_processes_may_append_and_each_learns_what_the_other_wrote_at_its_next_flush(tmp_path):
    mine, other = RememberedErrors(tmp_path, "a"), RememberedErrors(tmp_path, "a")
    for round in range(5):
        mine.put([f"mine {round}"], [round + 0.25])
        other.put([f"other {round}"], [round + 0.75])
        mine.flush()
        other.flush()
        assert other.get([f"mine {round}"]) == [round + 0.25]
        assert mine.get([f"other {round}"]) is None
        mine.flush()
        assert mine.get([f"other {round}"]) == [round + 0.75]
    assert len(RememberedErrors(tmp_path, "a")) == 10


def test_processes_that_append_at_the_same_time_lose_nothing(tmp_path):
    program = (
        "import sys; from pathlib import Path; from dpo.remembered import RememberedErrors\n"
        "memory = RememberedErrors(Path(sys.argv[1]), 'a')\n"
        "for number in range(300):\n"
        "    memory.put([f'{sys.argv[2]} {number}'], [float(number)]); memory.flush()\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], cwd=ROOT) for name in "ab"]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    memory = RememberedErrors(tmp_path, "a")
    for name in "ab":
        assert memory.get([f"{name} {number}" for number in range(300)]) == [float(number) for number in range(300)]


def test_the_file_may_be_deleted_while_a_run_uses_it(tmp_path):
    path = written(tmp_path / "cache", numbered(10))
    memory = RememberedErrors(path.parent, "a")
    path.unlink()
    path.parent.rmdir()
    assert memory.get(list(numbered(10))) == list(numbered(10).values())
    memory.put(["new"], [0.5])
    memory.flush()
    written(path.parent, {"of another": 1.5})
    memory.flush()
    assert memory.get(["new", "of another"]) == [0.5, 1.5]
    path.unlink()
    written(path.parent, {"begun anew": 2.5})
    memory.flush()
    assert memory.get(["begun anew"]) == [2.5]


def test_a_disk_that_refuses_is_a_sentence_and_what_was_known_stays_known(tmp_path):
    memory = RememberedErrors(tmp_path / "cache", "a")
    memory.put(["key"], [1.0])
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(RememberedError, match=r"a.errors cannot be written: File exists\. Free some space, or set"):
        memory.flush()
    assert memory.get(["key"]) == [1.0]
    (tmp_path / "cache").unlink()
    memory.flush()
    assert RememberedErrors(tmp_path / "cache", "a").get(["key"]) == [1.0]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.errors").mkdir()
    with pytest.raises(RememberedError, match=r"a.errors cannot be read: Is a directory\. Delete it"):
        RememberedErrors(tmp_path, "a")


# ------------------------------------------------------------------------------------------------ never stale


def of(dtype=torch.float32, reference="", change=None, **settings) -> str:
    pipeline = build_pipeline(dtype=dtype)
    if change:
        change(pipeline)
    return fingerprint(load_family(pipeline), reference, TrainConfig(**settings))


def with_adapter(pipeline):
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights="gaussian"), adapter_name="policy")


@torch.no_grad()
def other_row(pipeline):
    pipeline.unet.mid_block.resnets[0].conv1.weight[-1] += 1


def other_schedule(pipeline):
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")


@pytest.mark.parametrize(
    "difference",
    [
        {"dtype": torch.bfloat16},
        {"reference": "0123"},
        {"precision": "bfloat16"},
        {"execution": "sequential"},
        {"batch_size": 2},
        {"attention": "native"},
        {"compile": True},
        {"change": other_row},
        {"change": other_schedule},
    ],
    ids=lambda difference: " ".join(getattr(value, "__name__", str(value)) for value in difference.values()),
)
def test_what_was_computed_with_another_is_not_found(difference):
    assert of(**difference) != of()


@pytest.mark.parametrize(
    "difference",
    [
        {"beta": 5.0, "loss": "ipo", "learning_rate": 1e-3, "seed": 7},
        {"accumulation": 9, "gradient_checkpointing": True, "optimizer": "prodigy", "learning_rate": 1.0},
        {"lora_rank": 2, "ema_decay": 0.9, "safeguard_mu": 0.5},
    ],
    ids=lambda difference: " ".join(difference),
)
def test_a_sweep_finds_what_another_run_has_computed(difference):
    assert of(**difference) == of()


def test_rows_that_run_alone_are_the_same_in_every_batch():
    assert of(execution="sequential", batch_size=4) == of(execution="policy_concurrent")


def test_what_another_kind_of_device_computed_is_not_found(monkeypatch):
    family = load_family(build_pipeline())
    before = fingerprint(family, "", TrainConfig())
    monkeypatch.setattr(type(family.denoiser), "device", torch.device("cuda"))
    assert fingerprint(family, "", TrainConfig()) != before


def test_the_adapter_that_trains_has_no_say_in_what_the_reference_answered():
    assert of(change=with_adapter) == of()


def test_a_weight_of_one_row_is_told_apart_as_any_other():
    """torch calls a column of one value contiguous whatever its stride, and then cannot view it as bytes."""
    one, other = torch.nn.Linear(96, 1, bias=False), torch.nn.Linear(96, 1, bias=False)
    assert weights_digest(one) == weights_digest(one) != weights_digest(other)
