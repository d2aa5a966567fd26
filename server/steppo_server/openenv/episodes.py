"""OpenEnv's reset, step and state in terms of sessions."""

import logging
import secrets
from collections.abc import Mapping

from pydantic import JsonValue
from pydantic_core import from_json

from steppo_env.catalogue import Catalogue
from steppo_env.errors import (
    DeadlineExceeded,
    EnvError,
    EpisodeEnded,
    EpisodeNotStarted,
    SteppoError,
    UnknownEnvironment,
)
from steppo_env.keys import canonical_json
from steppo_env.wire import CreateSession, StepRequest
from steppo_server.openenv.documents import EpisodeStateModel, ResetRequest
from steppo_server.sessions import SessionManager

__all__ = ["Chooser", "OwnEpisode", "metadata_of", "new_id", "observed", "offered_name", "state_of"]

Document = dict[str, JsonValue]

_NOT_METADATA = ("observation", "reward", "step_index", "lease_expires_at")

MAX_KEPT = 256
"""Most environments with options whose splits are remembered."""
MAX_KEPT_BYTES = 1000
"""Longest options that are remembered, as JSON."""

logger = logging.getLogger("steppo.server")


def offered_name(catalogue: Catalogue, name: str) -> str:
    """Return which environment is meant: by its whole name, or by what stands after the slash.

    Raises:
        UnknownEnvironment: None is, or several are.
    """
    if name in catalogue.names:
        return name
    short = [offered for offered in catalogue.names if offered.rpartition("/")[2] == name]
    if len(short) > 1:
        raise UnknownEnvironment(f"{name!r} is short for {', '.join(short)}; say which")
    return short[0] if short else catalogue.get(name).name


def new_id() -> str:
    """Return the id of a session that nobody has chosen one for."""
    return f"openenv-{secrets.token_hex(16)}"


class Chooser:
    """Says which session a reset asks for. One for a whole server: it remembers splits."""

    def __init__(self) -> None:
        self._splits: dict[tuple[str, bytes], Mapping[str, int]] = {}

    async def creation(
        self,
        manager: SessionManager,
        env_name: str,
        request: ResetRequest,
        *,
        session_id: str,
        seed: int,
    ) -> CreateSession:
        """Return what begins the session.

        Args:
            seed: The request's, or what is taken in its place.

        Raises:
            UnknownEnvironment, InvalidOptions, MissingData, MissingDependency, EnvError: As they say.
        """
        split, index = request.split, request.index
        if request.task_id is None and (split is None or index is None):
            splits = await self._splits_of(manager, env_name, request.options)
            split = split or next((name for name in ("train", *splits) if name in splits), "train")
            if index is None:
                # An empty or unknown split has no index at all: the creation says so.
                index = seed % splits[split] if splits.get(split) else 0
        return CreateSession(
            env_id=env_name,
            task_id=request.task_id,
            split=split,
            index=index,
            seed=seed,
            options=request.options,
            session_id=session_id,
        )

    async def _splits_of(
        self, manager: SessionManager, env_name: str, options: Mapping[str, JsonValue]
    ) -> Mapping[str, int]:
        key = (env_name, canonical_json(dict(options)))
        if key in self._splits:
            return self._splits[key]
        # Describing costs as much as some twenty steps of a cheap environment.
        splits = (await manager.describe(env_name, options)).splits
        if len(key[1]) <= MAX_KEPT_BYTES:
            if len(self._splits) >= MAX_KEPT:
                del self._splits[next(iter(self._splits))]  # the oldest
            self._splits[key] = splits
        return splits


def observed(reply: bytes, episode_id: str | None) -> Document:
    """Return a SessionReply or StepReply as OpenEnv has it: observation, reward, done."""
    document: Document = from_json(reply)
    shown = document["observation"]
    assert isinstance(shown, dict)
    return {
        "observation": {**shown, "metadata": _metadata(document, episode_id)},
        "reward": document.get("reward"),
        "done": bool(document["terminated"] or document["truncated"]),
    }


def state_of(reply: bytes, episode_id: str | None) -> Document:
    """Return a SessionReply as the state that OpenEnv asks for."""
    return _metadata(from_json(reply), episode_id)


def metadata_of(result: Document) -> Document:
    """Return the metadata in what `observed` gave."""
    shown = result["observation"]
    assert isinstance(shown, dict)
    metadata = shown["metadata"]
    assert isinstance(metadata, dict)
    return metadata


def _metadata(document: Document, episode_id: str | None) -> Document:
    step_index = document["step_index"]
    assert isinstance(step_index, int)
    # A session's index is of the step to come, a step's of the one just taken.
    step_count = step_index + ("reward" in document)
    members = {name: value for name, value in document.items() if name not in _NOT_METADATA}
    return {"episode_id": episode_id, "step_count": step_count, **members}


class OwnEpisode:
    """The one episode that a connection has: a session nobody else is told of, freed with it."""

    def __init__(
        self, manager: SessionManager, chooser: Chooser, owner: str, env_name: str
    ) -> None:
        self._manager = manager
        self._chooser = chooser
        self._owner = owner
        self._env_name = env_name
        self._session_id: str | None = None
        self._state: Document = EpisodeStateModel().model_dump(mode="json")
        self._failure: SteppoError | None = None

    async def reset(self, request: ResetRequest) -> Document:
        """End the episode there was, begin one, and return its first observation.

        Raises:
            UnknownEnvironment, UnknownTask, InvalidOptions, CapacityExceeded, TooManyRequests, EnvError:
                No episode was begun.
        """
        name = offered_name(self._manager.catalogue, self._env_name)
        seed = secrets.randbits(31) if request.seed is None else request.seed
        creation = await self._chooser.creation(
            self._manager, name, request, session_id=new_id(), seed=seed
        )
        # Before the creation: at the limit of sessions there is no room for both.
        await self.close()
        self._session_id = creation.session_id
        try:
            reply = await self._manager.create(self._owner, creation)
        except SteppoError:
            self._session_id = None  # when cancelled instead, there may be a session to free
            raise
        episode_id = request.episode_id or creation.session_id
        result = observed(reply, episode_id)
        self._state = dict(metadata_of(result))
        return result

    async def step(self, text: str) -> Document:
        """Take the next step and return what it led to.

        Raises:
            EpisodeNotStarted: There was no reset yet.
            EpisodeEnded: The episode takes no further step.
            CapacityExceeded, WorkerDied, StoreError: The step was not taken; it can be sent again.
            EnvError, DeadlineExceeded: The step failed, and the episode with it.
        """
        if self._session_id is None:
            raise EpisodeNotStarted("there is no episode; send a reset first")
        if self._failure is not None:
            raise EpisodeEnded(
                f"the episode failed: {self._failure}; reset begins another", trainable=False
            )
        step_count = self._state["step_count"]
        assert isinstance(step_count, int)
        try:
            request = StepRequest(step_index=step_count, action=text)
            reply = await self._manager.step(self._owner, self._session_id, request)
        except (EnvError, DeadlineExceeded) as error:
            self._failure = error
            self._state["trainable"] = False
            raise
        result = observed(reply, str(self._state["episode_id"]))
        facts = metadata_of(result)
        self._state |= {name: value for name, value in facts.items() if name in self._state}
        return result

    def state(self) -> Document:
        """Return which episode it is and where it stands."""
        return dict(self._state)

    async def renew(self) -> None:
        """Keep the session while the policy thinks. A failure is logged: the next step tells it."""
        if self._session_id is None:
            return
        try:
            await self._manager.renew(self._owner, self._session_id, is_revival=True)
        except SteppoError as error:
            logger.warning("the lease of session %s: %s", self._session_id, error)

    async def close(self) -> None:
        """Free the session, if there is one. A failure is logged: the lease ends it all the same."""
        session_id, self._session_id = self._session_id, None
        self._state = EpisodeStateModel().model_dump(mode="json")
        self._failure = None
        if session_id is None:
            return
        try:
            await self._manager.delete(self._owner, session_id)
        except SteppoError as error:
            logger.warning("session %s: %s", session_id, error)
