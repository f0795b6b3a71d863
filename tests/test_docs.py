"""The README says what is there: commands, flags, settings, keys, presets, files, folders. Each is checked against the code."""

import ast
import html
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import dpo.__main__ as headless
from dpo.config import TrainConfig
from dpo.config_files import preset_names
from dpo.menu import LOSSES, NOT_OFFERED
from dpo.pairs import Pair
from dpo.project import open_project
from dpo.runs import create_run
from tests.families import families
from tests.families.checks import CHECKS
from tests.test_architecture import pins
from ui.session import project_secret

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
START = "pip install -r requirements.txt && python app.py"
TEST = "pip install -r tests/requirements.txt && python -m pytest"
LONGEST_DESCRIPTION = 60  # characters; Hugging Face refuses a longer short_description


def section(title: str) -> str:
    """The text under a heading of level 2, up to the next one."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert match, f"README has no section {title!r}"
    return match.group(1)


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def table(text: str) -> list[list[str]]:
    """The cells of the first table, without its head."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.lstrip().startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def front_matter() -> dict[str, str]:
    match = re.match(r"---\n(.*?)\n---\n", README, re.DOTALL)
    assert match, "README does not begin with the card of a Space"
    lines = dict(line.split(": ", 1) for line in match.group(1).splitlines())
    return {key: value.strip('"') for key, value in lines.items()}


# ------------------------------------------------------------------------------------------------ starting


def test_the_card_of_the_space_starts_this_app_with_the_pinned_gradio():
    card = front_matter()
    assert (card["sdk"], card["app_file"], card["license"]) == ("gradio", "app.py", "apache-2.0")
    assert card["sdk_version"] == pins("requirements.txt")["gradio"].split()[0]
    assert len(card["short_description"]) <= LONGEST_DESCRIPTION
    assert (ROOT / card["app_file"]).is_file()


def test_the_license_is_the_one_the_card_names():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_two_commands_stand_in_the_readme_each_on_a_line_of_its_own():
    lines = [line for block in code_blocks(section("The first minute")) for line in block.splitlines()]
    assert START in lines and TEST in lines


def test_continuous_integration_runs_the_command_of_the_readme():
    path = ROOT / ".ci/run"
    assert TEST in path.read_text(encoding="utf-8").splitlines()
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0


def test_the_flags_are_those_of_the_app():
    usage = subprocess.run([sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    offered = set(re.findall(r"^ +(--[a-z-]+)", usage, re.MULTILINE))
    listed = [found[1] for row in table(section("Flags of app.py")) if (found := re.match(r"`(--[a-z-]+)", row[0]))]
    assert sorted(listed) == sorted(offered)


# ------------------------------------------------------------------------------------------------ using


def commands() -> list[str]:
    lines = [line for block in code_blocks(README) for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith("python -m dpo ")]


def test_every_headless_command_is_shown():
    shown = {shlex.split(line)[3] for line in commands()}
    listed = re.search(r"`python -m dpo ([a-z |\n]+)`", headless.__doc__).group(1)
    assert shown == {name.strip() for name in listed.split("|")}


@pytest.mark.parametrize("line", commands())
def test_a_headless_command_is_understood(line):
    arguments = shlex.split(line)[3:]
    name = headless._parser().parse_args(arguments).command.__name__
    place = {"pairs": 1, "project": 1, "users": 2}.get(arguments[0])  # of the word that says which
    assert name.removesuffix("s") == (f"{arguments[place]}_{arguments[0]}" if place else arguments[0]).removesuffix("s")


def test_modules_that_the_readme_runs_exist():
    for name in sorted(set(re.findall(r"python -m ([a-z_.]+)", README))):
        assert importlib.util.find_spec(name), name


def test_the_keys_are_those_the_picker_shows():
    template = (ROOT / "ui/picker.py").read_text(encoding="utf-8")

    def plain(text: str) -> str:
        return html.unescape(re.sub(r"<[^>]+>", "", text))

    shown = [[plain(key), plain(what)] for key, what in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", template)]
    assert [[key.replace("`", ""), what] for key, what in table(section("Keys"))] == shown


# ------------------------------------------------------------------------------------------------ settings


def settings_table() -> list[list[str]]:
    """What the README's table must hold; print it with `python -m tests.test_docs`."""
    rows = []
    for field in fields(TrainConfig):
        choices = field.metadata["choices"]
        text = field.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
        rows.append([f"`{field.name}`", field.metadata["label"], str(field.default) or "none", text])
    return rows


def test_the_settings_are_those_of_the_code():
    assert table(section("Settings")) == settings_table()


def loss_tables() -> tuple[list[list[str]], list[list[str]]]:
    """What the README's two tables of losses must hold; printed with the settings."""
    offered = [[f"`{name}`", loss.data, loss.summary] for name, loss in LOSSES.items()]
    return offered, [[f"`{name}`", why] for name, why in NOT_OFFERED.items()]


def test_the_losses_are_those_of_the_menu():
    offered, not_offered = section("Losses").split("Not offered")
    assert (table(offered), table(not_offered)) == loss_tables()


def test_the_table_of_families_has_a_row_for_each_and_a_column_for_each_check():
    _, checked = section("Model families").split("prints this table:")
    rows = [line.strip("| ").split(" | ") for line in checked.splitlines() if line.startswith("|")]
    assert rows[0] == ["Family", *CHECKS]
    assert [row[0] for row in rows[2:]] == [tiny.title for tiny in families()]
    assert {word for row in rows[2:] for word in row[1:-1]} == {"ok"}


def test_the_kinds_of_adapters_are_those_of_the_code():
    listed = [row[0].strip("`") for row in table(section("Adapters"))]
    assert listed == list(next(field for field in fields(TrainConfig) if field.name == "adapter").metadata["choices"])


def test_every_preset_is_listed():
    listed = re.findall(r"^- `([a-z0-9-]+)`:", section("Settings"), re.MULTILINE)
    assert sorted(listed) == sorted(preset_names())


# ------------------------------------------------------------------------------------------------ files


def paths_in(block: str) -> list[str]:
    """Full paths of an indented listing: two spaces a level, several names on a line, the comment after two spaces."""
    found, parents = [], []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        assert indent % 2 == 0, line
        parents = parents[: indent // 2]
        for name in re.split(r" {2,}", line.strip())[0].split():
            found.append("".join([*parents, name]))
        if found[-1].endswith("/"):
            parents.append(found[-1].removeprefix("".join(parents)))
    return found


def test_the_tree_lists_every_file_of_the_program_and_none_that_is_not_there():
    listed = paths_in(code_blocks(section("The tree"))[0])
    assert [path for path in listed if not (ROOT / path).exists()] == []
    kept = (*ROOT.glob("dpo/**/*.py"), *ROOT.glob("ui/*.*"), ROOT / "app.py")
    there = {path.relative_to(ROOT).as_posix() for path in kept}
    assert sorted(there - set(listed)) == []
    assert len(listed) == len(set(listed))


def test_the_project_folder_is_as_described(tmp_path):
    project = open_project(tmp_path / "project")
    project_secret(project.path)
    pairs = [Pair(prompt="a", chosen="a.png", rejected="b.png")] * 4
    run = create_run(project.runs, "NAME", TrainConfig(), pairs)
    described = set(paths_in(code_blocks(section("The project folder"))[0]))
    made = {
        path.relative_to(project.path).as_posix() + ("/" if path.is_dir() else "")
        for path in project.path.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    }
    assert made <= described
    for path in (run.adapter, run.checkpoints, run.reference, run.tensorboard):
        relative = path.relative_to(project.path)
        assert described & {f"{relative.as_posix()}/", f"{relative.parent.as_posix()}/"}


def test_pictures_and_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if not target.startswith("https://")]
    assert any(target.startswith("docs/") for target in local)
    assert [target for target in local if not (ROOT / target).exists()] == []


# ------------------------------------------------------------------------------------------------ docstrings


def says_nothing(path: Path) -> list[str]:
    """Public things whose caller would have to guess: modules, classes with methods, functions of several arguments.

    The one public thing of a module may leave the word to the module; a function of a line or two shows what it does.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    silent = [] if ast.get_docstring(tree) else ["the module"]
    for node in public if len(public) > 1 else []:
        if isinstance(node, ast.ClassDef):
            must_speak = any(isinstance(part, kinds) and not part.name.startswith("_") for part in node.body)
        else:
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            must_speak = len(arguments) > 1 and node.end_lineno - node.lineno > 2
        if must_speak and not ast.get_docstring(node):
            silent.append(node.name)
    return silent


def test_what_a_caller_cannot_guess_is_said():
    silent = {path.relative_to(ROOT).as_posix(): says_nothing(path) for path in ROOT.glob("dpo/**/*.py")}
    assert {path: names for path, names in silent.items() if names} == {}


if __name__ == "__main__":
    for row in [*settings_table(), *loss_tables()[0], *loss_tables()[1]]:
        print(f"| {' | '.join(row)} |")
