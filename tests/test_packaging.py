"""What hatch packages, what is in the folders, and what the entry points name must agree.

hatch skips a path that does not exist without a word, so a misspelt package would ship nothing.
"""

import re
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = {
    Path(name).name: ROOT / name
    for name in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
}
HOMES = ("envs", "server", "client")


def folders_with_code() -> set[str]:
    """Return the names of the importable folders in the places where packages live."""
    candidates = [path for home in HOMES for path in (ROOT / home).iterdir()]
    candidates.append(ROOT / "steppo_env")
    return {path.name for path in candidates if path.is_dir() and any(path.glob("*.py"))}


def test_every_package_is_listed_and_every_listed_package_exists() -> None:
    assert set(PACKAGES) == folders_with_code()


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_every_package_is_typed_and_importable_by_one_name(name: str) -> None:
    assert (PACKAGES[name] / "__init__.py").is_file()
    assert (PACKAGES[name] / "py.typed").is_file()


@pytest.mark.parametrize("home", [*HOMES, "tests"])
def test_folders_of_packages_are_no_packages_themselves(home: str) -> None:
    """An __init__.py there would give every module a second import name."""
    depth = "**/__init__.py" if home == "tests" else "__init__.py"
    assert list((ROOT / home).glob(depth)) == []


def packages_of(group: str) -> set[str]:
    """Return the packages that the entry points of a group name."""
    registered = PYPROJECT["project"]["entry-points"][group]
    return {value.partition(":")[0] for value in registered.values()}


ENVIRONMENTS = packages_of("steppo_env.environments")


def test_every_package_of_envs_is_registered_or_serves_those_that_are() -> None:
    plugins = ENVIRONMENTS | packages_of("steppo_env.step_rewards")
    in_envs = {path.name for path in PACKAGES.values() if path.parent.name == "envs"}
    assert in_envs - plugins == {"steppo_services"}


def test_installed_entry_points_are_those_of_pyproject() -> None:
    """A stale editable install would test something else than the tree."""
    for group, wanted in PYPROJECT["project"]["entry-points"].items():
        installed = {point.name: point.value for point in entry_points(group=group)}
        assert installed == wanted


def test_every_environment_has_a_readme_with_what_a_user_needs() -> None:
    for name in sorted(ENVIRONMENTS):
        text = (PACKAGES[name] / "README.md").read_text(encoding="utf-8").lower()
        for subject in ("tool", "action", "state", "reward", "split", "expert", "citation"):
            assert subject in text, f"{name}/README.md does not speak of {subject}"


def test_import_contracts_know_every_package() -> None:
    contracts = PYPROJECT["tool"]["importlinter"]
    assert set(contracts["root_packages"]) == set(PACKAGES)
    layers = " | ".join(contracts["contracts"][0]["layers"])
    assert set(re.findall(r"\w+", layers)) == set(PACKAGES)


def test_every_dependency_is_pinned_by_the_constraints() -> None:
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    extras = PYPROJECT["project"]["optional-dependencies"]
    needed = [*PYPROJECT["project"]["dependencies"]]
    for extra in ("server", "textworld", "alfworld", "postgres", "dev"):
        needed += extras[extra]
    names = {re.split(r"[\[<>=~! ]", item)[0].lower() for item in needed}
    assert names - {"steppo-env"} <= pinned


def test_git_ignores_nothing_that_a_wheel_ships() -> None:
    """hatch obeys .gitignore even for tracked files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert listed.stdout == ""
