"""Plugins that are installed for one test."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import gymnasium
import pytest

from steppo_env import registry

STUBS = Path(__file__).parent / "stub_envs.py"


class InstallPlugin(Protocol):
    """Installs a distribution of environments, for this process and for those it starts."""

    def __call__(
        self,
        environments: Mapping[str, str],
        modules: Mapping[str, str] | None = None,
        name: str = "stub",
    ) -> None: ...


def _forget() -> None:
    registry._entry_points.cache_clear()
    registry.env_class.cache_clear()


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstallPlugin]:
    """Return what installs environments, given as entry points by id, and the modules they need.

    The module `stub_envs` is always there. Everything is undone after the test.
    """
    modules_before, registered_before = set(sys.modules), set(gymnasium.registry)

    def install(
        environments: Mapping[str, str],
        modules: Mapping[str, str] | None = None,
        name: str = "stub",
    ) -> None:
        folder = tmp_path / f"site-{name}"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{env_id} = {value}" for env_id, value in environments.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines]))
        for module, source in {"stub_envs": STUBS.read_text(), **(modules or {})}.items():
            (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        monkeypatch.setenv("PYTHONPATH", path)
        _forget()

    yield install
    monkeypatch.undo()
    _forget()
    for module in set(sys.modules) - modules_before:
        if module == "stub_envs" or module.startswith("plugin_"):
            del sys.modules[module]
    for env_id in set(gymnasium.registry) - registered_before:
        del gymnasium.registry[env_id]
