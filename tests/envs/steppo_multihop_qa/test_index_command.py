"""`steppo data index`, called as the command line calls it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from steppo_env.errors import InvalidOptions, MissingData, SteppoError
from steppo_multihop_qa import MultihopQA
from steppo_multihop_qa.index_command import index
from steppo_multihop_qa.retrieval.shared import close_shared
from tests.envs.steppo_multihop_qa.retrieval.conftest import Service, embed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep the indexes of each test apart."""
    monkeypatch.setenv("STEPPO_HOME", str(tmp_path / "home"))
    yield tmp_path / "home" / "retrieval"
    close_shared()


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(index)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, SteppoError):
        raise result.exception
    return result


def test_it_builds_once_and_the_environment_opens_what_it_built(tiny: Path, home: Path) -> None:
    first = run("--env-data", tiny)
    assert first.exit_code == 0
    assert first.stdout.startswith("built: ")
    (folder,) = (path for path in home.iterdir() if not path.name.startswith("."))
    before = (folder / "index.json").stat().st_mtime_ns
    facts = json.loads(run("--env-data", tiny, "--json").stdout)
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    assert facts == {
        "folder": str(folder),
        "was_built": False,
        "num_passages": 4,
        "num_bytes": num_bytes,
    }
    MultihopQA(data=tiny, retriever="bm25s").start("q1", 0)
    assert (folder / "index.json").stat().st_mtime_ns == before


def test_a_corpus_needs_no_questions_and_none_given_is_the_world(tiny: Path) -> None:
    (tiny / "questions.jsonl").unlink()
    assert run("--env-data", tiny).exit_code == 0
    assert json.loads(run("--json").stdout)["num_passages"] == 1833


def test_it_embeds_a_corpus_for_the_environment(tiny: Path) -> None:
    service = Service(embed)
    try:
        asked = ("--embeddings-url", f"{service.url}/v1", "--embeddings-model", "hash")
        result = run("--env-data", tiny, "--retriever", "dense", *asked, "--batch-size", 3)
        assert result.exit_code == 0
        assert sorted(len(body["input"]) for _, _, body in service.requests) == [1, 3]
        env = MultihopQA(
            data=tiny,
            retriever="dense",
            embeddings_url=f"{service.url}/v1",
            embeddings_model="hash",
            top_k=1,
        )
        env.start("q1", 0)
        action = env.expert()
        assert action is not None
        assert env.advance(action).info["supporting_recall"] == 0.5
    finally:
        service.close()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--retriever", "dense"), InvalidOptions),
        (("--env-data", "/nowhere"), MissingData),
    ],
)
def test_what_is_missing_is_named(
    arguments: tuple[str, ...], error: type[Exception], tiny: Path
) -> None:
    with pytest.raises(error):
        run(*arguments)


def test_a_retriever_without_an_index_is_refused() -> None:
    assert run("--retriever", "rank_bm25").exit_code == 2
