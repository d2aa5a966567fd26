"""What modules export, and what packages re-export. Read from the source: nothing is imported."""

import ast
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"][
    "build"
]["targets"]["wheel"]
PACKAGES = {Path(name).name: ROOT / name for name in WHEEL["packages"]}
MODULES = {
    ".".join((name, *path.relative_to(folder).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for name, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
    # Programs export nothing.
    if path.name != "__main__.py"
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
RE_EXPORTING = [name for name, path in MODULES.items() if path.name == "__init__.py"]


def top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, also those inside its if, try and with blocks."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from top_level(
                [child for child in ast.walk(node) if isinstance(child, ast.stmt)][1:]
            )


def exported(name: str) -> list[str] | None:
    """Return `__all__` of a module, or None where there is none."""
    for node in TREES[name].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def imported(name: str) -> dict[str, str]:
    """Return the names that a module imports from our packages, with the module they come from."""
    return {
        (alias.asname or alias.name): node.module
        for node in top_level(TREES[name].body)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES
        for alias in node.names
        if node.module is not None
    }


def bound(name: str) -> set[str]:
    """Return every name that a module binds at its top level."""
    names: set[str] = set()
    for node in top_level(TREES[name].body):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            case ast.Assign():
                names |= {ast.unparse(target) for target in node.targets}
            case ast.AnnAssign():
                names.add(ast.unparse(node.target))
            case _:
                pass
    return names


def in_order(names: Sequence[str]) -> list[str]:
    """Sort as ruff does: CONSTANTS, Classes, functions."""
    return sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))


@pytest.mark.parametrize("name", RE_EXPORTING)
def test_a_package_exports_in_order_exactly_what_it_imports_from_itself(name: str) -> None:
    body = [node for node in TREES[name].body if not isinstance(node, ast.Expr)]
    names = exported(name)
    if names is None:
        assert body == [], f"{name} has code and no __all__"
        return
    assert names == in_order(names)
    assert len(set(names)) == len(names)
    assert set(names) == set(imported(name)), "imported and not exported, or the reverse"
    assert all(origin.startswith(f"{name}.") for origin in imported(name).values())
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in body)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in RE_EXPORTING])
def test_a_module_exports_in_order_names_of_its_own(name: str) -> None:
    names = exported(name)
    assert names is not None, f"{name} has no __all__"
    assert names == in_order(names)
    assert len(set(names)) == len(names)
    assert set(names) <= bound(name)
    assert not any(each.startswith("_") for each in names)
    assert not set(names) & set(imported(name)), "a name has one home"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_uses_of_another_package_only_what_that_exports(name: str) -> None:
    for each, origin in imported(name).items():
        is_foreign = origin.partition(".")[0] != name.partition(".")[0]
        if is_foreign and f"{origin}.{each}" not in MODULES:
            assert each in (exported(origin) or ()), f"{origin} does not export {each}"
