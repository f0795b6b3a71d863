"""Who may import whom, and what only one module may know. Breaking one of these is a design decision, not a detail:
the README's tree and rules change with it.

The checks read the syntax tree, so that they see imports and names inside functions too and never run what they judge.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import get_args

import pytest

from dpo.events import Event

ROOT = Path(__file__).resolve().parent.parent
DPO, UI = sorted(ROOT.glob("dpo/**/*.py")), sorted(ROOT.glob("ui/**/*.py"))
SOURCE = [ROOT / "app.py", *DPO, *UI]
HEAVY = ("torch", "diffusers", "transformers", "peft")
# These are what a run computes with; only jobs import them. Everything else is loaded when the app starts.
HEAVY_MODULES = {
    "dpo.adapter_loading", "dpo.adapter_types", "dpo.adapters", "dpo.base_adapter", "dpo.bitsandbytes_layers",
    "dpo.branching", "dpo.cache", "dpo.checkpoint_adapters", "dpo.checkpoints", "dpo.draws", "dpo.fingerprints", "dpo.frozen",
    "dpo.loading", "dpo.looks", "dpo.losses", "dpo.optimisation", "dpo.portions", "dpo.probe", "dpo.quantised",
    "dpo.remembered", "dpo.sampling", "dpo.schedulers", "dpo.scorers", "dpo.scoring", "dpo.strip", "dpo.trainer",
    "dpo.validation",
}  # fmt: skip
HEAVY_MODULES |= {f"dpo.formats.{name}" for name in ("factors", "header", "merging", "reading", "writing")}
HEAVY_MODULES |= {f"dpo.families.{path.stem}" for path in (ROOT / "dpo/families").glob("*.py") if path.stem != "__init__"}
SQL_MODULES = {
    "dpo/project.py", "dpo/backups.py", "dpo/restoring.py", "dpo/library.py", "dpo/catalogue.py", "dpo/index.py", "dpo/leases.py",
    "dpo/picks.py", "dpo/pick_tables.py", "dpo/given.py", "dpo/scores.py", "dpo/votes.py", "dpo/bundle/said.py",
}  # fmt: skip
SQL = re.compile(r"\s*(SELECT|INSERT (OR \w+ )?INTO|UPDATE|DELETE FROM|CREATE (TABLE|VIEW|INDEX)|PRAGMA|BEGIN IMMEDIATE)\s")
INSIDE_A_RUN = {"config.json", "pairs.json", "held_out.json", "events.jsonl"}
EVENTS = {event.__name__ for event in get_args(Event)}
# A setting asks for them, and says which package it needs; everything else works without.
# `spaces` is there on ZeroGPU, where Spaces install it by themselves.
OPTIONAL = {"bitsandbytes", "gguf", "prodigyopt", "spaces", "torchao", "trackio", "wandb"}
MUTATORS = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear", "sort"}
LONGEST = 400  # lines; a longer file has a second thought in it
# Written so that this file does not hold what it looks for.
PLACES = re.compile("|".join(f"(?<![\\w.~-])/{name}/" for name in ("work", "tmp", "root")))
REGISTRIES = re.compile(
    "|".join(("pypi" + r"\.org", "python" + "hosted", r"download\." + "pytorch", "index" + "-url", "find" + "-links"))
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths: Sequence[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """One test of what must hold for every path, which names all those it does not hold for."""

    def judge(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = {}
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    wrong[named(path)] = str(error)
            assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return judge


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    return named(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(nodes) -> set[str]:
    """Every name the nodes import: `from a import b` gives both a and a.b, for b may be a module."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def all_imports(path: Path) -> set[str]:
    return imports(ast.walk(tree(path)))


def imports_at_load(path: Path) -> set[str]:
    """What importing the module imports: not what its functions do, nor what is for type checkers only."""
    return imports(loaded_nodes(tree(path).body))


def loaded_nodes(body) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from loaded_nodes(node.orelse)
        else:
            yield node
            yield from loaded_nodes(ast.iter_child_nodes(node))


def reaches(found: set[str], *packages: str) -> set[str]:
    return {name for name in found for package in packages if name == package or name.startswith(package + ".")}


def texts(path: Path) -> set[str]:
    """The string constants of a file that are not docstrings."""
    docstrings = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstrings.add(id(node.body[0].value))
    return {
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }


# ------------------------------------------------------------------------------------------------ who imports whom


@each(DPO)
def test_the_library_does_not_know_the_page(path):
    assert not reaches(all_imports(path), "ui", "app", "gradio", "starlette", "tests")


@each([path for path in SOURCE if module_name(path) not in HEAVY_MODULES])
def test_what_the_page_loads_imports_nothing_heavy(path):
    found = imports_at_load(path)
    assert not reaches(found, *HEAVY)
    assert not reaches(found, *HEAVY_MODULES), "it would bring torch along"


def test_the_list_of_heavy_modules_is_true():
    for name in HEAVY_MODULES:
        path = ROOT / (name.replace(".", "/") + ".py")
        assert reaches(imports_at_load(path), *HEAVY, *HEAVY_MODULES - {name}), f"{name} is light now: take it off the list"


def test_starting_the_app_loads_no_torch():
    program = (
        "import sys, app, ui, dpo.__main__, dpo.training, dpo.compare, dpo.demo.candidates\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_the_trainer_sees_a_family_only_through_the_protocol():
    for name in ("trainer", "validation", "scoring", "draws", "cache", "adapters"):
        found = reaches(all_imports(ROOT / f"dpo/{name}.py"), "dpo.families")
        assert found <= {"dpo.families", "dpo.families.Family", "dpo.families.Conditioning"}, name


@each(sorted(ROOT.glob("dpo/families/*.py")))
def test_a_family_knows_nothing_of_training(path):
    allowed = reaches(all_imports(path), "dpo.families", "dpo.architectures", "dpo.prompts") | {"dpo", "dpo.StudioError"}
    assert not reaches(all_imports(path), "dpo") - allowed


@pytest.mark.parametrize("name", ["losses", "events"])
def test_the_pure_parts_import_no_sibling(name):
    assert not reaches(all_imports(ROOT / f"dpo/{name}.py"), "dpo")


@each(sorted(ROOT.glob("ui/*_tab.py")))
def test_tabs_do_not_import_each_other(path):
    others = {module_name(other) for other in ROOT.glob("ui/*_tab.py")} - {module_name(path)}
    assert not reaches(all_imports(path), *others)


@each(SOURCE)
def test_imports_stand_where_they_can_be_seen(path):
    dynamic = {"importlib", "__import__"}
    names = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
    found = reaches(all_imports(path), "importlib") - reaches(all_imports(path), "importlib.metadata")  # which asks for versions
    assert not found and not names & dynamic


# ------------------------------------------------------------------------------------------------ who knows what


@each([path for path in SOURCE if named(path) not in SQL_MODULES])
def test_only_the_project_and_its_stores_speak_sql(path):
    assert not reaches(all_imports(path), "sqlite3")
    assert not [text for text in texts(path) if SQL.match(text)]


def test_the_stores_do_speak_sql():  # otherwise the check above looks for the wrong words
    for name in SQL_MODULES:
        assert [text for text in texts(ROOT / name) if SQL.match(text)], name


@each([path for path in SOURCE if named(path) != "dpo/runs.py"])
def test_only_runs_knows_the_names_inside_a_run(path):
    assert not texts(path) & INSIDE_A_RUN


def test_runs_does_know_the_names_inside_a_run():
    assert texts(ROOT / "dpo/runs.py") >= INSIDE_A_RUN


@each([path for path in SOURCE if named(path) not in ("dpo/events.py", "dpo/runs.py")])
def test_only_runs_asks_for_lines_of_events(path):
    assert not reaches(all_imports(path), "dpo.events.append_event", "dpo.events.read_events", "dpo.events.read_new_events")
    assert not [text for text in texts(path) if "events" in text and ".jsonl" in text]


@each([path for path in SOURCE if named(path) != "dpo/events.py"])
def test_only_events_turns_an_event_into_a_line_or_back(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            assert not ("type" in keys and None in node.keys), f"line {node.lineno} makes a line as dpo/events.py does"
        if isinstance(node, ast.Compare):
            words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            assert not words & EVENTS, f"line {node.lineno} reads an event by its name"


def test_losses_are_functions_and_hold_no_state():
    classes = [node for node in tree(ROOT / "dpo/losses.py").body if isinstance(node, ast.ClassDef)]
    for found in classes:
        assert [ast.unparse(decorator) for decorator in found.decorator_list] == ["dataclass(frozen=True)"], found.name
        assert not [node for node in ast.walk(found) if isinstance(node, ast.FunctionDef)], f"{found.name} has behaviour"


# ------------------------------------------------------------------------------------------------ how a file is kept


@each(SOURCE + sorted(ROOT.glob("ui/*.js")) + sorted(ROOT.glob("ui/*.css")) + sorted(ROOT.glob("tests/**/*.py")))
def test_a_file_fits_in_a_head(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < LONGEST


@each(SOURCE)
def test_no_mistake_is_swallowed_whole(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            everything = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(line, ast.Pass | ast.Continue) or ast.unparse(line) == "..." for line in node.body)
            assert not (everything and silent), f"line {node.lineno} hides every mistake"


@each(SOURCE)
def test_modules_hold_no_state(path):
    """No `global`, and nothing made at module level is changed later."""
    module_level = {
        target.id
        for node in tree(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree(path)):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            changed = node.func.value.id in module_level and node.func.attr in MUTATORS
            assert not changed, f"line {node.lineno} changes {node.func.value.id}"
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
            targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
            for target in targets:
                changed = (
                    isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id in module_level
                )
                assert not changed, f"line {node.lineno} changes {target.value.id}"


def texts_of_the_repository() -> list[Path]:
    binary = {".png", ".zip", ".safetensors", ".pyc"}
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in (".ci", "docs", "dpo", "presets", "tests", "ui"):
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in found if path.suffix not in binary]


@pytest.mark.parametrize("what", [PLACES, REGISTRIES], ids=["place on one machine", "package registry"])
def test_no_file_names_a(what):
    found = {named(path): what.findall(path.read_text(encoding="utf-8", errors="replace")) for path in texts_of_the_repository()}
    assert {name: sorted(set(hits)) for name, hits in found.items() if hits} == {}


# ------------------------------------------------------------------------------------------------ what is required


def pins(name: str) -> dict[str, str]:
    """{package: "version  # comment"} of a requirements file; every line must pin one version."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line.strip() and not line.startswith(("#", "-r"))]
    for line in lines:
        assert re.match(r"[a-z0-9_-]+==[0-9][0-9.]*(  # .+)?$", line), f"{name}: {line!r} does not pin one version"
    return dict(line.split("==") for line in lines)


def third_party(paths) -> set[str]:
    names = {name.split(".")[0] for path in paths for name in all_imports(path)}
    return names - sys.stdlib_module_names - {"dpo", "ui", "app", "tests"} - OPTIONAL


def packages(modules: set[str]) -> set[str]:
    """The packages that modules come from: PIL -> pillow."""
    known = packages_distributions()
    return {known[module][0].lower().replace("_", "-") for module in modules}


def test_every_import_is_pinned_and_every_pin_imported_or_explained():
    listed = pins("requirements.txt")
    imported = packages(third_party([*SOURCE, *sorted(ROOT.glob("presets/**/*.py"))]))
    unexplained = {name for name in listed.keys() - imported if "not imported" not in listed[name]}
    # torch.utils.tensorboard imports it on our behalf.
    assert (imported - listed.keys(), unexplained - {"tensorboard"}) == (set(), set())
    assert next(iter(listed)) == "torch"


def test_every_import_of_the_tests_is_pinned():
    listed = pins("tests/requirements.txt")
    assert "-r ../requirements.txt" in (ROOT / "tests/requirements.txt").read_text()
    imported = packages(third_party(sorted(ROOT.glob("tests/**/*.py"))))
    assert imported <= listed.keys() | pins("requirements.txt").keys()
    assert listed.keys() <= imported | OPTIONAL | {"ruff", "pytest-rerunfailures", "pytest-xdist"}


def test_installed_versions_are_the_pinned_ones():
    for name, text in (pins("requirements.txt") | pins("tests/requirements.txt")).items():
        assert version(name).split("+")[0] == text.split()[0], name
