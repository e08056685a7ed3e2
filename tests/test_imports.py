"""Imports go downward only, read with ast; and only the command prints."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_files import FILES, FLOORS, ROOT

import hpa_merge
import hpa_merge.errors


def imports(file: Path) -> Iterator[str]:
    """Dotted names of every module that a file imports, inside functions too."""
    package = ("hpa_merge", *file.parent.parts)
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own(file: Path) -> set[str]:
    """The parts of the package that a file imports."""
    names = [name.split(".") for name in imports(file)]
    return {name[1] for name in names if name[0] == "hpa_merge" and len(name) > 1}


def foreign(file: Path) -> set[str]:
    """The other packages that a file imports, without the standard library."""
    return {name.split(".")[0] for name in imports(file)} - sys.stdlib_module_names - {"hpa_merge"}


def part(name: str) -> list[Path]:
    found = [file for file in FILES if file.parts[0] in (name, f"{name}.py")]
    assert found, name
    return found


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_a_part_imports_what_lies_below_it(floor: int) -> None:
    below = {"__version__"}.union(*FLOORS[:floor])
    for name in FLOORS[floor]:
        for file in part(name):
            assert own(file) <= below | {name}, file


def test_every_part_has_a_floor() -> None:
    assert {file.parts[0].removesuffix(".py") for file in FILES} - {"__init__", "__main__"} == set().union(*FLOORS)


def test_core_imports_torch_alone() -> None:
    for file in part("core"):
        assert foreign(file) <= {"torch"}, file


def test_nothing_imports_the_command() -> None:
    assert [str(file) for file in FILES if "cli" in own(file) and file.parts[0] != "cli"] == ["__main__.py"]


def test_the_top_and_the_command_import_nothing_heavy_at_once() -> None:
    commands = [file for file in part("cli") if "tables" not in file.parts]
    for name in (Path("__init__.py"), Path("config.py"), Path("errors.py"), *commands):
        top = ast.parse((ROOT / name).read_text(encoding="utf-8")).body
        modules = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        modules |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
        assert not {module.split(".")[0] for module in modules} & {"torch", "transformers", "safetensors", "rich"}


def test_what_is_delicate_has_one_home() -> None:
    """Greenlets are switched in one file, transformers' conversion mapping is touched in one.

    HTTP is spoken by the library that huggingface_hub has, httpx or httpx2: each raises errors of its own.
    """
    assert {str(file) for file in FILES if "greenlet" in foreign(file)} == {"engine/machine.py", "model/lockstep.py"}
    mapping = ("transformers.conversion_mapping", "transformers.core_model_loading")
    users = {str(file) for file in FILES if any(name.startswith(mapping) for name in imports(file))}
    assert users == {"model/conversion.py"}
    assert not [str(file) for file in FILES if foreign(file) & {"httpx", "httpx2", "httpcore", "requests", "urllib3"}]


def test_tests_import_helpers_and_lie_in_the_rooms_that_they_test() -> None:
    """No test file imports another one; a folder of tests is a room of the package, or it is no room's."""
    tests = Path(__file__).parent
    for file in tests.rglob("*.py"):
        if file.name == "nightly.py":  # a program; it begins as a session of tests does
            continue
        names = {name.split(".")[0] for name in imports(file)}
        assert not [name for name in names if name == "conftest" or (tests / f"{name}.py").is_file()], file
        assert not [name for name in names if name.startswith("test_")], file
    folders = {file.parent.name for file in tests.glob("*/test_*.py")} - {"docs", "helpers"}
    assert folders <= {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}


def test_only_the_command_prints() -> None:
    for file in FILES:
        if file.parts[0] == "cli":
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            place = f"{file}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "click.echo", "click.secho", "rich.print"), place
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                assert ast.unparse(node) not in ("sys.stdout", "sys.stderr"), place


def test_the_public_names_are_those_that_are_exported() -> None:
    """Each is found where the package says, ``dir`` and tab completion show them, and nothing else is public."""
    assert dir(hpa_merge) == sorted(hpa_merge.__all__)
    for name in hpa_merge.__all__:
        found = getattr(hpa_merge, name)
        assert name == "__version__" or found.__name__ == name
    assert set(hpa_merge._HOME) | {"__version__"} == set(hpa_merge.__all__)
    errors = {name for name in vars(hpa_merge.errors) if name.endswith("Error")}
    assert errors <= set(hpa_merge.__all__)
