"""The server's settings: defaults < the [server] table of a TOML file < STEPPO_SERVER_* < flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from steppo_env.config_file import read_config_table
from steppo_env.errors import InvalidInput, StoreError
from steppo_env.home import steppo_home
from steppo_env.tools import explain
from steppo_server.hosts import is_loopback
from steppo_server.logs import LogFormat

__all__ = ["ServerSettings", "journal_url", "read_settings"]


class ServerSettings(BaseSettings):
    """Where the server listens and what it allows. Durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix="STEPPO_SERVER_", extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8765, ge=0, le=65535, description="Port; 0 takes a free one.")
    allow_remote: bool = Field(
        default=False,
        description="Listen beyond loopback although the server asks nobody for a key.",
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="Names besides this machine's own under which a server without keys, on loopback, "
        "may be asked.",
    )
    max_sessions: int = Field(default=20_000, ge=1, description="Live sessions; more get 503.")
    max_sessions_per_key: int = Field(
        default=20_000, ge=1, description="Live sessions of one key; more get 429."
    )
    journal: str | None = Field(
        default=None,
        description="Database URL of the journal; None is a file under STEPPO_HOME, and "
        "'sqlite://' one in memory, which ends with the process.",
    )
    journal_sync: Literal["normal", "full"] = Field(
        default="normal",
        description="What an answered step outlives: the process, or with full a loss of power too.",
    )
    revival_s: float = Field(
        default=86_400.0,
        ge=0,
        description="How long a session whose lease ran out can be taken up again.",
    )
    max_body_bytes: int = Field(default=8_000_000, ge=1_000, description="Longest request body.")
    stream_requests: int = Field(
        default=1024,
        ge=1,
        le=100_000,
        description="Requests of one /v1/stream that are worked on at a time; beyond them it is not read.",
    )
    default_lease_s: float = Field(
        default=900.0,
        gt=0,
        le=86_400,
        description="Without use after which a session is freed, where its creation does not say.",
    )
    begin_deadline_s: float = Field(
        default=300.0, gt=0, description="To begin an episode; the first one may load a data pack."
    )
    step_deadline_s: float = Field(default=60.0, gt=0, description="To take one step.")
    queue_deadline_s: float = Field(
        default=120.0,
        gt=0,
        description="To wait for other sessions of the environment; then 503.",
    )
    max_expected_wait_s: float = Field(
        default=60.0,
        gt=0,
        description="Longest wait for an environment that is expected; a call that would wait longer "
        "gets 503 at once.",
    )
    processes: dict[str, Annotated[int, Field(ge=0, le=256)]] = Field(
        default_factory=dict,
        max_length=100,
        description="Processes by environment id; 0 runs it on a thread. An environment that computes "
        "has 2, others none.",
    )
    drain_s: float = Field(
        default=0.0,
        ge=0,
        le=3_600,
        description="Between the signal to stop and the end of accepting connections: /readyz says "
        "draining, and no session begins.",
    )
    shutdown_s: int = Field(default=4, ge=1, description="For open requests when asked to stop.")
    log_format: LogFormat = Field(
        default=LogFormat.TEXT, description="Lines on stderr: text, or one JSON object each."
    )
    access_log: bool = Field(default=False, description="Log each request, at the level info.")
    otel: bool = Field(
        default=False,
        description="Send OpenTelemetry traces, as the variables OTEL_* say; needs steppo-env[otel].",
    )

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach the server."""
        return is_loopback(self.host)


def read_settings(
    path: Path | None, flags: Mapping[str, object], *, has_keys: bool = False
) -> ServerSettings:
    """Read the settings from every source.

    Args:
        path: The TOML file, or None.
        flags: Command-line flags; None values are not set.
        has_keys: The server asks for a key, so it may listen where others can reach it.

    Raises:
        MissingData: The file cannot be read.
        InvalidInput: A value is out of bounds, a name unknown, or the address is open to others.
    """
    table = read_config_table(path, "server") if path is not None else {}
    given = {name: value for name, value in flags.items() if value is not None}
    # The environment stands between file and flags: what it sets must override the table.
    from_environment = _checked({}, "the variables STEPPO_SERVER_*").model_dump(exclude_unset=True)
    _checked(table, f"{path}: [server]")
    settings = _checked({**table, **from_environment, **given}, "the flags")
    if not (settings.is_loopback or settings.allow_remote or has_keys):
        raise InvalidInput(
            f"other machines may reach the host {settings.host!r}, and the server asks nobody for a "
            "key; make keys with steppo keygen, bind to 127.0.0.1, or say --allow-remote"
        )
    return settings


def journal_url(settings: ServerSettings) -> str:
    """Return where the journal is, after making the folder of the one under STEPPO_HOME.

    Raises:
        StoreError: The folder cannot be made.
    """
    if settings.journal is not None:
        return settings.journal
    folder = steppo_home() / "server"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {folder} for the journal: {error.strerror}") from error
    return f"sqlite:///{(folder / 'journal.db').as_posix()}"


def _checked(values: Mapping[str, Any], where: str) -> ServerSettings:
    """Return the settings; a mistake among `values` is told with where they come from."""
    try:
        return ServerSettings(**values)
    except ValidationError as error:
        raise InvalidInput(f"{where}: {explain(error)}") from None
