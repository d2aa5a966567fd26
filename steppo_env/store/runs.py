"""The record of one run: what produced a set of trajectories."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue
from sqlalchemy import RowMapping

from steppo_env.errors import InvalidInput
from steppo_env.store.codec import Row
from steppo_env.store.json_text import dump_json, load_json
from steppo_env.store.validation import check_integer, check_number, check_text

__all__ = ["Run", "decode_run", "encode_run"]


@dataclass(frozen=True, slots=True)
class Run:
    """One rollout, evaluation or training run.

    Attributes:
        kind: "rollout", "eval", "train" or whatever else the caller runs.
        config: What it was started with; keep secrets out of it.
        code_version: Of the software that ran it.
        env_versions: Version of each environment, by environment id.
        started_at: Unix time, seconds.
        ended_at: Unix time, seconds, or None while it runs.
        outcome: How it ended, or None while it runs.
    """

    run_id: str
    kind: str
    config: Mapping[str, JsonValue]
    seed: int
    code_version: str
    env_versions: Mapping[str, str]
    started_at: float
    ended_at: float | None = None
    outcome: str | None = None


def encode_run(run: Run) -> Row:
    """Return the row of a run, without its sequence number.

    Raises:
        InvalidInput: The run holds something that cannot be kept.
    """
    name = f"run {run.run_id!r}"
    if not run.run_id:
        raise InvalidInput("a run needs a run_id; got an empty one")
    check_integer(run.seed, f"{name}: seed")
    check_number(run.started_at, f"{name}: started_at")
    if run.ended_at is not None:
        check_number(run.ended_at, f"{name}: ended_at")
    row: Row = {
        "run_id": run.run_id,
        "kind": run.kind,
        "config": dump_json(run.config, f"{name}: config"),
        "seed": run.seed,
        "code_version": run.code_version,
        "env_versions": dump_json(run.env_versions, f"{name}: env_versions"),
        "started_at": float(run.started_at) + 0.0,
        "ended_at": None if run.ended_at is None else float(run.ended_at) + 0.0,
        "outcome": run.outcome,
    }
    for column, value in row.items():
        if isinstance(value, str):
            check_text(value, f"{name}: {column}")
    return row


def decode_run(row: RowMapping) -> Run:
    """Return the run of a row."""
    return Run(
        run_id=row["run_id"],
        kind=row["kind"],
        config=load_json(row["config"]),
        seed=row["seed"],
        code_version=row["code_version"],
        env_versions=load_json(row["env_versions"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=row["outcome"],
    )
