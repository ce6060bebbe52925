"""What a module says of itself is what the import contracts hold it to."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import userproxy

ROOT = Path(userproxy.__file__).parent
CONTRACTS = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def sources_of(contract: str) -> list[str]:
    """The modules that a contract is about; each stands for all below it."""
    (found,) = (each for each in CONTRACTS if each["name"].startswith(contract))
    modules: list[str] = found["source_modules"]
    return modules


def modules() -> dict[str, Path]:
    """All but the tests, by name."""
    paths = (path for path in ROOT.rglob("*.py") if "tests" not in path.parts)
    return {name_of(path): path for path in paths}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def test_a_module_that_says_it_is_pure_is_held_to_it() -> None:
    held = sources_of("purity")
    said = {
        name
        for name, path in modules().items()
        if "Pure." in (ast.get_docstring(ast.parse(path.read_text())) or "")
    }
    assert len(said) > 20
    assert not {name for name in said if not any(f"{name}.".startswith(f"{one}.") for one in held)}


def test_what_contracts_name_is_there() -> None:
    named = [name for each in CONTRACTS for name in each.get("source_modules", ())]
    assert set(named) <= modules().keys()


def test_all_of_the_command_line_is_under_its_contract() -> None:
    assert sources_of("the command line") == ["userproxy.cli"]
