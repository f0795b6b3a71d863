"""Leases, with a clock that tests move; processes are two Leases over one file."""

import threading

import pytest

from dpo.leases import LEASE_MIGRATIONS, LEASE_SECONDS, Leases
from dpo.project import Database, open_project
from tests.asking import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def leases(tmp_path, clock):
    return Leases(Database(tmp_path / "leases.sqlite", LEASE_MIGRATIONS, "OFF"), clock)


def test_a_group_is_one_pages_until_its_lease_runs_out(leases, clock):
    assert leases.hold("page-a", ["g1", "g2"]) == {"g1", "g2"}
    clock.now += LEASE_SECONDS - 1
    assert leases.hold("page-b", ["g1", "g3"]) == {"g3"}
    assert leases.of_others("page-b") == {"g1", "g2"}
    clock.now += 2
    assert leases.of_others("page-b") == set()
    assert leases.hold("page-b", ["g1", "g3"]) == {"g1", "g3"}


def test_a_clock_that_is_put_back_leaves_no_group_to_a_page_that_is_gone(leases, clock):
    """Its lease would run out when the clock is there again: in an hour, or tomorrow."""
    leases.hold("page-a", ["g1", "g2"])
    clock.now -= 3600
    assert leases.of_others("page-b") == set()
    assert leases.hold("page-b", ["g1"]) == {"g1"}
    assert leases.hold("page-a", ["g1", "g2"]) == {"g2"}  # a page that is still there renews its own


def test_a_page_that_goes_on_asking_keeps_its_groups(leases, clock):
    for _ in range(5):
        assert leases.hold("page-a", ["g1"]) == {"g1"}
        clock.now += LEASE_SECONDS - 1
    assert leases.hold("page-b", ["g1"]) == set()


def test_what_a_page_does_not_hold_any_more_is_free_at_once(leases):
    leases.hold("page-a", ["g1", "g2"])
    leases.hold("page-a", ["g2"])
    assert leases.hold("page-b", ["g1", "g2"]) == {"g1"}


def test_a_page_learns_that_another_took_its_group_while_it_was_silent(leases, clock):
    leases.hold("page-a", ["g1", "g2"])
    clock.now += LEASE_SECONDS + 1
    assert leases.hold("page-b", ["g1"]) == {"g1"}
    assert leases.hold("page-a", ["g1", "g2"]) == {"g2"}


def test_the_groups_of_a_page_that_is_gone_can_be_given_up(leases):
    leases.hold("page-a", ["g1"])
    leases.hold("page-b", ["g2"])
    leases.give_up("page-a")
    assert leases.of_others("page-c") == {"g2"}


def test_who_has_no_name_sees_the_leases_of_all(leases):
    leases.hold("page-a", ["g1"])
    assert leases.of_others("") == {"g1"}
    assert leases.of_others("page-a") == set()


def test_of_pages_that_ask_at_once_in_several_processes_one_gets_each_group(tmp_path):
    groups = [f"g{number}" for number in range(40)]
    got: dict[str, set[str]] = {}

    def ask(client):
        leases = Leases(Database(tmp_path / "leases.sqlite", LEASE_MIGRATIONS, "OFF"))
        got[client] = leases.hold(client, groups)

    Database(tmp_path / "leases.sqlite", LEASE_MIGRATIONS, "OFF")
    threads = [threading.Thread(target=ask, args=(f"page-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(group for mine in got.values() for group in mine) == sorted(groups)


def test_leases_wait_for_no_disk_and_a_broken_file_is_made_anew(tmp_path):
    assert open_project(tmp_path).picks is not None
    for leftover in tmp_path.glob("leases.sqlite-*"):
        leftover.unlink()
    (tmp_path / "leases.sqlite").write_bytes(b"this is no database" * 1000)
    open_project(tmp_path)
    leases = Leases(Database(tmp_path / "leases.sqlite", LEASE_MIGRATIONS, "OFF"))
    assert leases.hold("page-a", ["g1"]) == {"g1"}
    assert leases._database.connection().execute("PRAGMA synchronous").fetchone()[0] == 0


def test_what_a_page_has_in_store_can_be_taken_but_not_what_it_shows_and_shows_next(leases):
    leases.hold("page-a", ["g3", "g1", "g2", "g4"])
    assert leases.of_others("page-b", only_firm=True) == {"g3", "g1"}
    assert leases.hold("page-b", ["g1", "g2", "g3", "g4"]) == set()
    assert leases.hold("page-b", ["g1", "g2", "g3"], takes=True) == {"g2"}
    assert leases.hold("page-a", ["g3", "g1", "g2", "g4"]) == {"g3", "g1", "g4"}
