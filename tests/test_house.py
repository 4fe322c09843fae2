"""Facts about the house as a whole: floors, imports, names, docstrings."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import taskfit

PACKAGE = Path(taskfit.__file__).parent
# Top to bottom; rooms on one line do not know each other.
FLOORS = [
    {"cli"},
    {"studies"},
    {"serving"},
    {"distillation"},
    {"prompting", "tuning", "evaluation"},
    {"strategy"},
    {"costs"},
    {"testing"},
    {"inference"},
    {"models"},
    {"tasks"},
    {"errors", "files", "threads", "versions"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = ("torch", "transformers", "peft", "sklearn", "pyarrow", "pydantic", "scipy", "jinja2", "numpy")


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("taskfit."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("taskfit."))
    return names


def _modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "taskfit.")]


def test_imports_go_down_the_floors_only() -> None:
    """A room imports from rooms below it, and from itself."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        room = _room(path)
        if room == "__init__":
            continue
        wrong.extend(
            f"{path.relative_to(PACKAGE)} imports {other}"
            for other in _imported_rooms(path)
            if other != room and LEVEL[other] <= LEVEL[room]
        )
    assert wrong == []


def test_importing_taskfit_loads_nothing_heavy() -> None:
    """``import taskfit`` and the command's modules stay light."""
    code = f"import sys, taskfit, taskfit.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_exact_and_can_be_fetched() -> None:
    """Every name in ``__all__`` exists, and nothing else is fetched lazily."""
    assert sorted(taskfit.__all__) == taskfit.__all__
    assert {name for name in taskfit.__all__ if name != "__version__"} == set(taskfit._NAMES)
    for name in taskfit.__all__:
        assert getattr(taskfit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = taskfit.no_such_name


@pytest.mark.parametrize("name", _modules())
def test_every_module_and_public_name_has_a_docstring(name: str) -> None:
    """Public modules, classes, functions and methods say what they are."""
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    missing = []
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            missing.append(node.name)
        if isinstance(node, ast.ClassDef):
            missing.extend(
                f"{node.name}.{member.name}"
                for member in node.body
                if isinstance(member, ast.FunctionDef)
                and not member.name.startswith("_")
                and ast.get_docstring(member) is None
            )
    assert missing == []


@pytest.mark.parametrize("name", _modules())
def test_all_lists_what_a_module_offers(name: str) -> None:
    """``__all__`` names public functions and classes that exist."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"


def test_no_pickle_is_ever_loaded() -> None:
    """Nothing in the package unpickles: a model or predictor folder can never run code."""
    forbidden = ("import pickle", "torch.load(", "joblib.load", "allow_pickle=True", "torch.save(")
    found = [
        f"{path.name}: {word}"
        for path in PACKAGE.rglob("*.py")
        for word in forbidden
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_every_task_key_and_metric_is_documented() -> None:
    """The reference page names all keys and metrics, and no others."""
    from taskfit.tasks.metric_names import METRIC_NAMES
    from taskfit.tasks.task_file import TASK_KEYS

    page = (PACKAGE.parent / "docs" / "task-file.md").read_text(encoding="utf-8")
    keys = page.split("## Keys")[1].split("## Sources")[0]
    documented = {line.split("`")[1] for line in keys.splitlines() if line.startswith("| `")}
    assert documented == set(TASK_KEYS)
    assert all(f"`{name}`" in page for name in METRIC_NAMES)
