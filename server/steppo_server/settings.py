"""The server's settings: defaults < the [server] table of a TOML file < STEPPO_SERVER_* < flags."""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from steppo_env.config_file import read_config_table
from steppo_env.errors import InvalidInput, StoreError
from steppo_env.home import steppo_home
from steppo_env.tools import explain

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
    default_lease_s: float = Field(default=900.0, gt=0, le=86_400)
    begin_deadline_s: float = Field(
        default=300.0, gt=0, description="To begin an episode; the first one may load a data pack."
    )
    step_deadline_s: float = Field(default=60.0, gt=0, description="To take one step.")
    queue_deadline_s: float = Field(
        default=120.0,
        gt=0,
        description="To wait for other sessions of the environment; then 503.",
    )
    processes: dict[str, Annotated[int, Field(ge=0, le=256)]] = Field(
        default_factory=dict,
        max_length=100,
        description="Processes by environment id; 0 runs it on a thread. An environment that computes "
        "has 2, others none.",
    )
    shutdown_s: int = Field(default=5, ge=1, description="For open requests when asked to stop.")

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_settings(path: Path | None, flags: Mapping[str, object]) -> ServerSettings:
    """Read the settings from every source.

    Args:
        path: The TOML file, or None.
        flags: Command-line flags; None values are not set.

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
    if not (settings.is_loopback or settings.allow_remote):
        raise InvalidInput(
            f"other machines may reach the host {settings.host!r}, and the server asks nobody for a "
            "key; bind to 127.0.0.1, or say --allow-remote"
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
