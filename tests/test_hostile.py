"""Prompts of a megabyte, and ones that a spreadsheet would carry out: lists stay short, and tables are tables."""

import csv

from dpo.exchange import export_dataset, read_dataset
from dpo.project import open_project
from tests.operations import best_worst
from tests.pictures import plain, write_prompted
from ui.words import LONGEST_PROMPT, shown_prompt

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "'=1", 'plain, "quoted"']


def make_project(folder, prompts):
    (folder / "candidates").mkdir(parents=True)
    for number, prompt in enumerate(prompts):
        for image in range(2):
            write_prompted(folder / "candidates" / f"{number}_{image}.png", prompt, plain(("red", "blue")[image]), image)
    project = open_project(folder)
    project.library.scan(folder / "candidates")
    groups = project.library.groups(folder / "candidates")
    project.picks.apply([best_worst(group, number) for number, group in enumerate(groups)])
    return project


def test_a_prompt_of_a_megabyte_is_kept_whole_and_shown_by_its_beginning(tmp_path):
    long = "a cat " * 170_000
    project = make_project(tmp_path / "project", [long])
    assert len(project.picks.pairs()[0].prompt) > 1_000_000
    assert shown_prompt("a cat") == "a cat"
    assert len(shown_prompt(long)) < LONGEST_PROMPT + 40 and shown_prompt(long).endswith("... (1,020,000 characters)")


def test_a_prompt_like_a_formula_is_text_in_a_table_and_comes_back_as_it_was(tmp_path):
    project = make_project(tmp_path / "project", FORMULAS)
    folder = export_dataset(project.picks.pairs(), tmp_path / "out", "csv", 0.0)
    with (folder / "train.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert sorted(row.prompt for row in read_dataset(folder).rows) == sorted(pair.prompt for pair in project.picks.pairs())
    assert {pair.prompt for pair in project.picks.pairs()} >= set(FORMULAS[:4])
