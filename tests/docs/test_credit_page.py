"""The table of docs/credit.md is what the package computes, and its figure what the script draws."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = DOCS / "figures" / "make_credit.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_credit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_package_computes(script: ModuleType) -> None:
    lines = (DOCS / "credit.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| estimator | settings | step 0 | step 1 | step 2 | step 3 | step 4 |")
    table: dict[tuple[str, str], list[float]] = {}
    for line in lines[start + 2 :]:
        if not line:
            break
        name, settings, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        table[name.strip("`"), settings] = [float(number) for number in numbers]
    computed: Mapping[str, NDArray[np.float64]] = script.advantages()
    assert table == {
        (name.partition(",")[0], script.PANELS[name][0]): [round(a, 3) + 0.0 for a in given]
        for name, given in computed.items()
    }


def test_the_wasted_step_is_negative_only_where_values_are_looked_at(script: ModuleType) -> None:
    computed: Mapping[str, NDArray[np.float64]] = script.advantages()
    below = {name for name, given in computed.items() if given[script.WASTED] < 0}
    assert below == {"step_gae, λ = 0", "monte_carlo", "token_gae"}


def test_the_example_agrees_with_values_worked_out_by_hand(script: ModuleType) -> None:
    computed: Mapping[str, NDArray[np.float64]] = script.advantages()
    assert computed["step_gae, λ = 0"] == pytest.approx([0.15, 0.15, -0.2, 0.15, 0.45])
    assert computed["monte_carlo"] == pytest.approx([0.25, 0.25, -0.5, 0.25, 0.5])
    assert computed["dr_grpo"] == pytest.approx([0.5] * 5)
    assert computed["rloo"] == pytest.approx([2 / 3] * 5)
    assert computed["grpo"] == pytest.approx([0.5 / (1 / 3) ** 0.5] * 5, rel=1e-5)
    assert computed["reinforce_pp"] == pytest.approx([0.95**k for k in (4, 3, 2, 1, 0)])


def test_running_the_script_reproduces_the_figure(tmp_path: Path) -> None:
    output = tmp_path / "credit.svg"
    command = [sys.executable, "-W", "error", str(SCRIPT), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == (DOCS / "figures" / "credit.svg").read_bytes()


def test_the_figure_changes_its_colours_where_the_screen_is_dark(script: ModuleType) -> None:
    svg = (DOCS / "figures" / "credit.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    assert "@media (prefers-color-scheme: dark)" in svg
    for light, dark in script.DARK.items():
        assert f": {light}" in svg
        assert f":{dark}!important" in svg
