"""`python -m dpo users FILE add | list | remove`: who may come to a shared page. Passwords are asked for, never given as words of
the command, which other people of the machine could see."""

from __future__ import annotations

import getpass
from pathlib import Path

from dpo.users import ROLES, User, UsersError, check_name, hash_password, read_users, write_users


def add_users_command(commands) -> None:
    command = commands.add_parser("users", help="who may come to a shared page: a file for app.py --users")
    command.add_argument("file", type=Path)
    what = command.add_subparsers(required=True, metavar="add | list | remove")

    add = what.add_parser("add", help="a user, or another password or role for one; asks for the password twice")
    add.add_argument("name")
    add.add_argument("--role", choices=ROLES, required=True, help="owner: everything; rater: pick and vote; viewer: look")
    add.set_defaults(command=add_user)

    what.add_parser("list", help="names and roles").set_defaults(command=list_users)

    remove = what.add_parser("remove", help="whoever is removed is out at once, also of a page that is open")
    remove.add_argument("name")
    remove.set_defaults(command=remove_user)


def add_user(args) -> None:
    """A user of this name, new or in the place of the one that there was."""
    users = read_users(args.file) if args.file.exists() else {}
    name = check_name(args.name)
    password = getpass.getpass(f"Password of {name}: ")
    written = hash_password(password)
    if getpass.getpass("The same once more: ") != password:
        raise UsersError("These were two different passwords. Nothing was changed.")
    write_users(args.file, (users | {name: User(name, args.role, written)}).values())
    print(f"{name} may log in as {args.role}.")


def list_users(args) -> None:
    """Names and roles, one a line."""
    for user in read_users(args.file).values():
        print(f"{user.name}  {user.role}")


def remove_user(args) -> None:
    """Take a user out of the file."""
    users = read_users(args.file)
    if users.pop(args.name, None) is None:
        raise UsersError(f"There is no {args.name} in {args.file}. It has: {', '.join(users) or 'nobody'}.")
    write_users(args.file, users.values())
    print(f"{args.name} is out.")
