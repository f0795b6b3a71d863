"""The file of users: who it lets in, as what, and what is wrong with a line of it."""

from __future__ import annotations

import os

import pytest

from dpo.__main__ import main
from dpo.users import User, Users, UsersError, check_password, hash_password, is_open_to_others, read_users, write_users

ROLES = {"ada": "owner", "grace": "rater", "joan": "viewer"}


@pytest.fixture(scope="module")
def hashed() -> str:
    return hash_password("correct horse")


@pytest.fixture
def file(tmp_path, hashed):
    write_users(tmp_path / "users", [User(name, role, hashed) for name, role in ROLES.items()])
    return tmp_path / "users"


def ask_with(monkeypatch, *passwords: str) -> None:
    answers = iter(passwords)
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))


def test_what_is_written_is_read_again_and_holds_no_password(file):
    assert {user.name: user.role for user in read_users(file).values()} == ROLES
    assert "correct" not in file.read_text() and "correct" not in repr(read_users(file)["ada"])
    assert not is_open_to_others(file)
    file.chmod(0o644)
    assert is_open_to_others(file) == (os.name == "posix")


def test_a_password_belongs_to_its_hash_alone_and_equal_ones_have_different_hashes(hashed):
    assert check_password("correct horse", hashed) and not check_password("correct horsf", hashed)
    assert not check_password("", hashed) and hash_password("correct horse") != hashed
    assert check_password("\udcff tin foil hat", hash_password("\udcff tin foil hat")), "whatever a form may send"


def test_a_password_that_is_soon_guessed_is_not_taken():
    with pytest.raises(UsersError, match="7 characters. Use 8 or more"):
        hash_password("1234567")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ada", "name:role:hash"),
        ("ada:king:{hash}", "owner"),
        ("a da:rater:{hash}", "name:role:hash"),
        ("ada:rater:plain password", "the hash of ada"),
        ("ada:rater:{hash}x", "the hash of ada"),
        ("ada:rater:scrypt$1073741824$8$1$" + "0" * 32 + "$" + "0" * 64, "the hash of ada"),  # would take the whole memory
        ("grace:rater:{hash}", "grace is there already"),
    ],
)
def test_a_bad_line_is_named_by_its_number(file, hashed, line, said):
    file.write_text(f"# people\ngrace:rater:{hashed}\n\n{line.format(hash=hashed)}\n")
    with pytest.raises(UsersError, match=rf"users, line 4: .*{said}"):
        read_users(file)


def test_the_file_is_read_again_when_it_changes_and_lets_nobody_in_when_it_is_broken(file, hashed, capsys):
    users = Users([User("me", "owner", hashed)], file)
    assert users.find("grace").role == "rater" and users.find("nobody") is None
    write_users(file, [User("grace", "viewer", hashed)])
    assert users.find("grace").role == "viewer" and users.find("ada") is None
    file.write_text("nonsense\n")
    assert users.find("grace") is None and users.find("me").role == "owner"
    assert "line 1" in capsys.readouterr().out
    file.unlink()
    assert users.find("grace") is None


def test_a_name_that_nobody_has_has_no_password(file):
    users = Users(path=file)
    assert users.is_password("ada", "correct horse")
    assert not users.is_password("nobody", "correct horse") and not users.is_password("ada", "wrong horse")


def test_users_are_added_listed_and_removed_from_the_terminal(tmp_path, monkeypatch, capsys):
    file = tmp_path / "users"
    ask_with(monkeypatch, "correct horse", "correct horse", "battery staple", "battery staple")
    assert main(["users", str(file), "add", "ada", "--role", "owner"]) == 0
    assert main(["users", str(file), "add", "grace", "--role", "rater"]) == 0
    assert main(["users", str(file), "list"]) == 0
    assert "ada  owner\ngrace  rater\n" in capsys.readouterr().out
    assert Users(path=file).is_password("grace", "battery staple")
    assert main(["users", str(file), "remove", "ada"]) == 0
    assert list(read_users(file)) == ["grace"]
    assert main(["users", str(file), "remove", "ada"]) == 2
    assert "no ada" in capsys.readouterr().err


def test_two_different_passwords_change_nothing(file, monkeypatch, capsys):
    before = file.read_text()
    ask_with(monkeypatch, "correct horse", "correct house")
    assert main(["users", str(file), "add", "ada", "--role", "viewer"]) == 2
    assert "two different passwords" in capsys.readouterr().err and file.read_text() == before
