"""`python -m dpo candidates`, on the demo model at 2 steps."""

import json

import pytest

from dpo.__main__ import main
from dpo.candidates import list_candidates
from dpo.project import open_project


def ask(folder, *more):
    return ["candidates", "--project", str(folder), "--sampling-steps", "2", "--json", *more]


def test_a_set_is_made_and_asked_for_again_is_only_looked_at(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a blue cube on sand\n\n")
    asked = ask(
        tmp_path / "project", "--name", "one", "--prompt", "a red ball", "--prompts-file", str(tmp_path / "prompts.txt"),
        "--per-prompt", "2", "--branch", "0.5", "--seed", "7",
    )  # fmt: skip
    assert main(asked) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"folder": str(tmp_path / "project/rounds/one"), "done": 4, "total": 4}
    assert "4 of 4 images, 100%" in said.err
    (found,) = list_candidates(open_project(tmp_path / "project"))
    assert (found.request.prompts, found.request.branch, found.request.seed) == (("a red ball", "a blue cube on sand"), 0.5, 7)
    assert main(asked) == 0
    assert "loading" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--prompt", "a"], "The set has no name"),
        (["--name", "one"], "There is no prompt"),
        (["--name", "one", "--prompt", "a", "--model", "gone.safetensors"], "gone.safetensors is not there"),
        (["--rejects", "--prompt", "a", "--branch", "0.5"], "leave out --prompt, --branch"),
        (["--rejects"], "No pair needs a rejected image"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(tmp_path, capsys, more, sentence):
    assert main(ask(tmp_path / "project", *more)) == 2
    assert sentence in capsys.readouterr().err
