"""Two real processes, started once for the whole file: `_work` is what each of them does."""

import multiprocessing
import os
import socket
import time
from datetime import timedelta

import pytest
import torch

from dpo.config import ConfigError
from dpo.parallel import Processes, ProcessesError, join_processes

ROWS = torch.arange(24.0, dtype=torch.float64).reshape(8, 3) / 7


@pytest.fixture(scope="module")
def told():
    """What process 0 and process 1 found out, by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(rank, port, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(30)
        assert worker.exitcode is not None, "a process hangs"
    return found[0], found[1]


def _work(rank, port, queue):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    processes = join_processes()
    found = {"rank": processes.rank, "count": processes.count, "is_main": processes.is_main}

    reductions = []
    all_reduce = torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda *args, **options: (reductions.append(1), all_reduce(*args, **options))
    found["gradients"] = [gradient.tolist() for gradient in gradients(processes)]
    found["reductions"] = len(reductions)
    torch.distributed.all_reduce = all_reduce

    own = {"loss": (1.5 + rank, 2.0), f"only_in_{rank}": (0.1 + rank, 1.0), "third": (1 / 3, 1.0)}
    found["sum"] = processes.sum(own)
    found["agree"] = processes.agree(7 + rank)
    found["share"] = processes.share({"accuracy": 0.5 + rank})
    if rank == 0:
        time.sleep(0.5)
        found["time"] = time.time()
    found["leaving"] = [processes.wait()]
    if rank == 1:
        found["time"] = time.time()
    found["leaving"].append(processes.wait(leaving=rank == 0))

    short = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=1))
    if rank == 0:  # process 1 does not answer, and then it is gone
        found["silent"] = refusal(Processes(0, 2, short).wait)
    processes.agree(0)
    if rank == 1:
        queue.put((rank, found))
        queue.close()
        queue.join_thread()
        os._exit(3)
    started = time.monotonic()
    found["gone"] = refusal(lambda: processes.sum({"loss": (1.0, 1.0)}))
    found["seconds"] = time.monotonic() - started
    queue.put((rank, found))


def refusal(call) -> str:
    try:
        call()
    except ProcessesError as error:
        return str(error)
    return "nothing was raised"


def gradients(processes) -> list[torch.Tensor]:
    """Of a small module over eight micro-batches of a row, of which this process takes its own."""
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    for index in range(processes.rank, len(ROWS), processes.count):
        (module(ROWS[index]).square().sum() / len(ROWS)).backward()
    parameters = list(module.parameters())
    processes.sum_gradients(parameters)
    return [parameter.grad for parameter in parameters]


def test_every_process_knows_its_place_and_the_first_one_writes(told):
    assert [(one["rank"], one["count"], one["is_main"]) for one in told] == [(0, 2, True), (1, 2, False)]


def test_two_processes_sum_to_the_gradients_of_one_with_one_reduction(told):
    alone = gradients(Processes())
    for one in told:
        for found, expected in zip(one["gradients"], alone, strict=True):
            torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=1e-12, atol=1e-15)
        assert one["reductions"] == 1
    assert told[0]["gradients"] == told[1]["gradients"]  # to the bit: or the processes would drift apart


def test_metrics_are_summed_though_one_process_alone_has_seen_some_of_them(told):
    assert told[0]["sum"] == told[1]["sum"]
    assert told[0]["sum"] == {"loss": (4.0, 4.0), "only_in_0": (0.1, 1.0), "only_in_1": (1.1, 1.0), "third": (2 / 3, 2.0)}


def test_the_first_process_decides_for_all(told):
    assert [one["agree"] for one in told] == [7, 7]
    assert [one["share"] for one in told] == [{"accuracy": 0.5}] * 2


def test_waiting_lasts_until_the_last_one_is_there(told):
    assert told[1]["time"] >= told[0]["time"]


def test_who_waits_hears_of_one_that_leaves(told):
    assert [one["leaving"] for one in told] == [[False, True]] * 2


def test_a_silent_process_and_a_dead_one_are_sentences_not_waits(told):
    for name in ("silent", "gone"):
        assert told[0][name].endswith("Resume the run: it goes on from its last checkpoint.")
    assert told[0]["silent"].startswith("Process 0 of 2 has lost the others: Timed out")
    assert told[0]["gone"].startswith("Process 0 of 2 has lost the others: Connection closed by peer")
    assert told[0]["seconds"] < 10


def test_a_process_alone_initialises_nothing_and_changes_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes = join_processes()
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    processes.sum_gradients([parameter])
    assert not processes.wait() and processes.wait(leaving=True)
    assert parameter.grad.tolist() == [1.0, 2.0]
    assert processes.sum({"loss": (1.0, 2.0)}) == {"loss": (1.0, 2.0)}
    assert (processes.agree(3), processes.share({"a": 1.0}), processes.is_main) == (3, {"a": 1.0}, True)
    assert not torch.distributed.is_initialized()


def test_micro_batches_that_do_not_go_round_are_refused_for_a_process_would_wait_for_ever():
    Processes(0, 2).check_shares(4)
    with pytest.raises(ConfigError, match="accumulation=3 cannot be shared evenly by 2 processes. Make it a multiple, such as 4"):
        Processes(0, 2).check_shares(3)
