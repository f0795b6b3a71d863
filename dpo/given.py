"""What people said about prompts, kept with their picks: which stand-ins a folder may use, and prompts they typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpo.groups import normalise_prompt
from dpo.standins import StandIns

if TYPE_CHECKING:
    from dpo.project import Database


class GivenPrompts:
    """Of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def choices(self) -> dict[str, StandIns]:
        """Absolute folder -> what was chosen for it."""
        rows = self._database.read("SELECT * FROM stand_ins")
        return {
            row["folder"]: StandIns(bool(row["sidecar"]), bool(row["folder_name"]), row["csv"], bool(row["pixels"]))
            for row in rows
        }

    def choose(self, folder: str, choice: StandIns) -> None:
        with self._database.write() as connection:
            values = folder, choice.sidecar, choice.folder_name, choice.table, choice.pixels
            connection.execute("INSERT OR REPLACE INTO stand_ins VALUES (?, ?, ?, ?, ?)", values)

    def typed(self) -> dict[str, str]:
        """Content key -> prompt."""
        return {row["key"]: row["prompt"] for row in self._database.read("SELECT * FROM typed_prompts")}

    def give(self, key: str, prompt: str) -> None:
        """Keep a prompt somebody typed; one that says nothing takes it back."""
        prompt = prompt.encode("utf-8", "replace").decode().strip()
        with self._database.write() as connection:
            if normalise_prompt(prompt):
                connection.execute("INSERT OR REPLACE INTO typed_prompts VALUES (?, ?)", (key, prompt))
            else:
                connection.execute("DELETE FROM typed_prompts WHERE key = ?", (key,))
