"""The README's examples."""

import re
import runpy
from pathlib import Path

import pytest

import steppo_paper_search
from steppo_env.registry import make
from steppo_paper_search.options import PaperSearchOptions

README = (Path(steppo_paper_search.__file__).parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_code_blocks_run(code: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(tmp_path / "block.py"))


def test_the_state_shown_is_a_real_one() -> None:
    env = make("steppo/PaperSearch-v0", list_size=4, abstract_words=20)
    env.start("dev-005-follow-ups", 0)
    action, state = re.findall(r"```text\n(.*?)\n```", README, flags=re.DOTALL)
    assert env.advance(action).observation.messages[1].content == state


def test_every_option_is_in_the_table() -> None:
    for name in PaperSearchOptions.model_fields:
        assert f"| `{name}` |" in README
