"""The client examples of docs/openenv.md run against a server, where openenv-core is installed."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "openenv.md"
EXAMPLES = re.findall(
    r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


def test_the_page_has_examples_that_compile() -> None:
    assert len(EXAMPLES) == 2
    for code in EXAMPLES:
        compile(code, PAGE.name, "exec")


@pytest.mark.timeout(120)
def test_the_examples_run(serve: Callable[[], str], tmp_path: Path) -> None:
    pytest.importorskip("openenv.core", reason="needs openenv-core")
    server = serve()
    for code in EXAMPLES:
        done = subprocess.run(
            [sys.executable, "-c", code.replace("http://127.0.0.1:8765", server)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "turns left" in done.stdout
