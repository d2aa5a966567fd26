"""The README's examples run, and its table of options is the model's."""

import re
from pathlib import Path

import steppo_multihop_qa
from steppo_multihop_qa import MultihopOptions

README = (Path(str(steppo_multihop_qa.__file__)).parent / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README


def test_every_option_is_in_the_table_with_its_default() -> None:
    for name, field in MultihopOptions.model_fields.items():
        default = getattr(field.default, "value", field.default)
        assert f"| `{name}` | `{default}` |" in README, name
