"""Where episodes live: a worker's own environments, asked with plain data and answering with it.

Synchronous, and used by one thread at a time. What goes in and out pickles, so that a host works the
same in the server's process and in one of its own. Nothing here knows leases, owners or the journal:
an episode can be lost at any moment and is rebuilt from its `EpisodeStart`.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from steppo_env.catalogue import Catalogue, EnvSpec
from steppo_env.describe import describe, list_tasks, summarize
from steppo_env.env import AnyEnv
from steppo_env.errors import (
    EnvError,
    EnvironmentChanged,
    InvalidInput,
    SteppoError,
    WorkerDied,
    boundary,
)
from steppo_env.keys import digest
from steppo_env.mdp import Action
from steppo_env.registry import env_class, plugin_version
from steppo_env.wire import ActionModel, EnvDetail, EnvList, ExpertReply, TaskPage
from steppo_server.episode import Episode, EpisodeStart, EpisodeState, StepTaken

__all__ = ["EnvHost", "EnvTraits"]

logger = logging.getLogger("steppo.server")


@dataclass(frozen=True, slots=True)
class EnvTraits:
    """What an environment's class says about where it is to run; see `StepEnv`."""

    is_blocking: bool
    is_cpu_bound: bool


class EnvHost:
    """The episodes of one worker, by key, and the environments they come from."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._episodes: dict[str, Episode] = {}
        self._plugin_versions: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._episodes)

    # Episodes.

    def begin(self, start: EpisodeStart) -> EpisodeState:
        """Begin an episode, or rebuild one; it takes the place of one under the same key.

        Raises:
            UnknownEnvironment, UnknownTask, InvalidOptions, MissingData, MissingDependency: As they say.
            EnvironmentChanged: `env_version` is not what is here.
            ReplayDiverged: The same actions lead elsewhere than they did the first time.
            EnvError: Environment code raised.
        """
        if start.trace_keys is not None and len(start.trace_keys) != len(start.actions) + 1:
            raise InvalidInput(
                f"{len(start.actions)} actions have one trace key more, not {len(start.trace_keys)}"
            )
        self.close(start.key)
        spec = self._catalogue.get(start.env_name)
        with boundary(EnvError, f"making {spec.name}"):
            env = spec.make(start.options)
        try:
            episode = Episode(start, env, self._checked_version(spec, env, start))
            state = episode.begun()
        except BaseException:
            _close(env, start.session_id)
            raise
        self._episodes[start.key] = episode
        return state

    def step(self, key: str, step_index: int, action: ActionModel | Action) -> StepTaken:
        """Take the next step of an episode.

        Raises:
            WorkerDied: The episode is not here.
            EpisodeEnded: The episode takes no further step.
            StepIndexMismatch: The index is not the next one.
            EnvError: Environment code raised or broke its contract; the episode takes no further step.
        """
        return self._held(key).take(step_index, action)

    def look(self, key: str) -> EpisodeState:
        """Return an episode as it stands.

        Raises:
            WorkerDied: The episode is not here.
        """
        return self._held(key).state()

    def expert(self, key: str) -> ExpertReply:
        """Return the next expert action of an episode and the distance; neither after its end.

        Raises:
            WorkerDied: The episode is not here.
            EnvError: Environment code raised.
        """
        return self._held(key).expert()

    def snapshot(self, key: str) -> bytes | None:
        """Return an episode as bytes for `EpisodeStart.snapshot`, or None: replay is as cheap.

        Raises:
            WorkerDied: The episode is not here.
            EpisodeEnded: The episode failed; what state it is in nobody knows.
            EnvError: Environment code raised.
        """
        return self._held(key).snapshot()

    def close(self, key: str) -> None:
        """Forget an episode and close its environment; without effect when it is not here.

        An environment that does not close cleanly is logged: the episode is gone either way.
        """
        episode = self._episodes.pop(key, None)
        if episode is not None:
            _close(episode.env, key)

    def close_all(self) -> None:
        """Forget every episode and close its environment."""
        for key in list(self._episodes):
            self.close(key)

    # Environments.

    def list_environments(self) -> EnvList:
        """Return what is offered, also what cannot be used here and why; loads code but no data."""
        names = self._catalogue.names
        return EnvList(environments=[summarize(self._catalogue.get(name)) for name in names])

    def describe(self, env_name: str, options: Mapping[str, JsonValue] | None = None) -> EnvDetail:
        """Return all about an environment as the options make it; see `describe.describe`."""
        return describe(self._catalogue.get(env_name), options)

    def list_tasks(
        self,
        env_name: str,
        split: str,
        limit: int,
        cursor: str | None = None,
        options: Mapping[str, JsonValue] | None = None,
    ) -> TaskPage:
        """Return the tasks of a split from a cursor on; see `describe.list_tasks`."""
        spec = self._catalogue.get(env_name)
        return list_tasks(spec, split, limit=limit, cursor=cursor, options=options)

    def traits(self, env_name: str) -> EnvTraits:
        """Return where an environment is to run, as its class says; loads its code.

        Raises:
            UnknownEnvironment, MissingDependency, EnvError: It cannot be used here.
        """
        cls = env_class(self._catalogue.get(env_name).env_id)
        return EnvTraits(is_blocking=bool(cls.is_blocking), is_cpu_bound=bool(cls.is_cpu_bound))

    def is_blocking(self, env_name: str, options: Mapping[str, JsonValue] | None = None) -> bool:
        """Return whether an environment blocks with these options; loads its data.

        Raises:
            UnknownEnvironment, InvalidOptions, MissingData, MissingDependency, EnvError: As they say.
        """
        spec = self._catalogue.get(env_name)
        with boundary(EnvError, f"making {spec.name}"):
            env = spec.make(options)
        is_blocking = bool(env.is_blocking)
        _close(env, env_name)
        return is_blocking

    def warm(self, env_names: Iterable[str]) -> None:
        """Load the code and the data of environments, so that the first episode need not wait.

        What cannot be loaded is logged; whoever asks for it gets the reason.
        """
        for env_name in env_names:
            try:
                self.is_blocking(env_name)
            except SteppoError as error:
                logger.warning("%s could not be loaded ahead: %s", env_name, error)

    def _held(self, key: str) -> Episode:
        episode = self._episodes.get(key)
        if episode is None:
            raise WorkerDied(
                f"episode {key} is not in this worker: it was replaced; rebuild the session",
                was_begun=False,
            )
        return episode

    def _checked_version(self, spec: EnvSpec, env: AnyEnv, start: EpisodeStart) -> str:
        """Return what names the environment's package, its data and its options."""
        if spec.env_id not in self._plugin_versions:
            self._plugin_versions[spec.env_id] = plugin_version(spec.env_id)
        options = digest(env.options.model_dump(mode="json"))
        plugin = self._plugin_versions[spec.env_id]
        version = f"{spec.env_id}@{plugin}:{env.tasks.version}:{options}"
        if start.env_version not in (None, version):
            raise EnvironmentChanged(
                f"session {start.session_id} was begun with {start.env_version}, and here is "
                f"{version}; begin a new session",
                trainable=False,
            )
        return version


def _close(env: AnyEnv, owner: str) -> None:
    try:
        env.close()
    except Exception:
        logger.exception("the environment of %s did not close cleanly", owner)
