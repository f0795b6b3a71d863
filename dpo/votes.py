"""The votes of blind tests, kept as rows that are only ever added; taking one back is a row too.

`client` and `number` name an operation for good: sent twice, it counts once. A page sends

    vote    test, item (its number), question, left: "base" | "adapter", result: "left" | "right" | "tie", perhaps rater
    undo    undoes: [client, number]
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpo.operations import MOST_OF_A_NAME, Refused, check_name
from dpo.picks import Applied

if TYPE_CHECKING:
    from dpo.project import Database

SIDES = ("base", "adapter")
RESULTS = ("left", "right", "tie")
_COLUMNS = "position, client, number, test, item, question, shown_left, result, rater, received"


@dataclass(frozen=True)
class Vote:
    """`left` is which of SIDES was shown at the left, `result` one of RESULTS; `made` in seconds since 1970."""

    position: int
    client: str
    number: int
    test: str
    item: int
    question: str
    left: str
    result: str
    rater: str
    made: float

    @property
    def preferred(self) -> str:
        """One of SIDES, or "" for a tie."""
        if self.result == "tie":
            return ""
        return self.left if self.result == "left" else SIDES[1 - SIDES.index(self.left)]


class VoteStore:
    """The votes of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def apply(self, operations: Iterable[dict], only_of: str | None = None) -> Applied:
        """Store operations in one transaction; when this returns they are on disk. `only_of`: whose votes may be taken back,
        besides those without a name; None: everybody's.

        A malformed one is refused with a reason and the others are kept; one that is known already changes nothing.
        Raises ProjectError if the disk refuses: then none was stored.
        """
        new, refused = 0, []
        with self._database.write() as connection:
            for operation in operations:
                try:
                    new += _store(connection, operation, only_of)
                except Refused as reason:
                    refused.append(str(reason))
        return Applied(new, tuple(refused))

    def votes(self, test: str, question: str) -> list[Vote]:
        """Those of a test and a question that were not taken back, in the order in which they came."""
        values = (test, question)
        rows = self._database.tuples(
            f"SELECT {_COLUMNS} FROM live_votes WHERE test = ? AND question = ? ORDER BY position", values
        )
        return [Vote(*row) for row in rows]

    def revision(self) -> int:
        """Grows with every operation stored."""
        return self._database.read("SELECT coalesce(max(position), 0) AS last FROM votes")[0]["last"]


def _store(connection: sqlite3.Connection, operation: object, only_of: str | None) -> int:
    """Insert one operation; 1 if it was new. Raises Refused."""
    if not isinstance(operation, dict):
        raise Refused(f"{operation!r} is not an operation")
    client, number = check_name([operation.get("client"), operation.get("number")])
    if connection.execute("SELECT 1 FROM votes WHERE client = ? AND number = ?", (client, number)).fetchone():
        return 0
    row = {"client": client, "number": number, "received": time.time()}
    match operation.get("op"):
        case "vote":
            row |= _check_vote(operation)
        case "undo":
            name = check_name(operation.get("undoes"))
            found = connection.execute("SELECT * FROM live_votes WHERE client = ? AND number = ?", name).fetchone()
            if found is not None and only_of is not None and found["rater"] not in ("", only_of):
                raise Refused(f"vote {name[1]} of {name[0]} is somebody else's")
            if found is None:
                raise Refused(f"vote {name[1]} of {name[0]} is unknown, or taken back already")
            row["undoes"] = found["position"]
        case other:
            raise Refused(f"op={other!r} is not known")
    names = ", ".join(row)
    connection.execute(f"INSERT INTO votes ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
    return 1


def _check_vote(operation: dict) -> dict:
    test, item, question = (operation.get(name) for name in ("test", "item", "question"))
    left, result, rater = operation.get("left"), operation.get("result"), operation.get("rater", "")
    if not (isinstance(test, str) and test and isinstance(question, str) and question):
        raise Refused(f"test={test!r}, question={question!r} name no test and question")
    if not isinstance(item, int) or isinstance(item, bool) or item < 0:
        raise Refused(f"item={item!r} is not the number of a pair")
    if left not in SIDES or result not in RESULTS:
        raise Refused(f"left={left!r}, result={result!r} is no vote")
    if not (isinstance(rater, str) and len(rater) <= MOST_OF_A_NAME and rater.isprintable()):
        raise Refused(f"rater={rater!r} is not a name of at most {MOST_OF_A_NAME} characters")
    return {"test": test, "item": item, "question": question, "shown_left": left, "result": result, "rater": rater.strip()}
