"""Keys: who may come in, what for, and whose sessions they see."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from steppo_env.errors import InvalidInput, MissingData, Unauthorized
from steppo_server.auth import ANYBODY, NO_KEYS, Authenticate, Keyring, KeyScope, new_key

if TYPE_CHECKING:
    from tests.server.conftest import Control, Serving

pytestmark = pytest.mark.anyio

ALICE, BOB, EXPERT, ADMIN = "steppo_alice", "steppo_bob", "steppo_expert", "steppo_admin"
SCOPES = {ALICE: ["act"], BOB: ["act"], EXPERT: ["act", "expert"], ADMIN: ["admin"]}
SESSION = {"env_id": "test/Light-v0", "task_id": "train-0"}
STEP = {"step_index": 0, "action": "go"}


def table(name: str, key: str, scopes: list[str]) -> str:
    return (
        f'[keys.{name}]\ndigest = "sha256:{sha256(key.encode()).hexdigest()}"\nscopes = {scopes}\n'
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "serve.toml"
    tables = [table(key.removeprefix("steppo_"), key, scopes) for key, scopes in SCOPES.items()]
    file.write_text("".join(tables))
    return file


@pytest.fixture
def keyring(file: Path) -> Keyring:
    return Keyring.from_toml(file)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def create(client: httpx.AsyncClient, key: str, **members: Any) -> httpx.Response:
    return await client.post("/v1/sessions", json={**SESSION, **members}, headers=bearer(key))


EVERY_CALL: list[tuple[str, str, Any]] = [
    ("GET", "/v1/envs", None),
    ("GET", "/v1/envs/test/Light-v0", None),
    ("GET", "/v1/envs/test/Light-v0/tasks?split=train", None),
    ("POST", "/v1/sessions", SESSION),
    ("POST", "/v1/groups", {**SESSION, "size": 1}),
    ("GET", "/v1/sessions/s", None),
    ("DELETE", "/v1/sessions/s", None),
    ("POST", "/v1/sessions/s/steps", STEP),
    ("POST", "/v1/sessions/s/forks", {}),
    ("GET", "/v1/sessions/s/expert", None),
    ("POST", "/v1/leases", {"session_ids": ["s"]}),
    ("POST", "/v1/batch/sessions", {"sessions": [SESSION]}),
    ("POST", "/v1/batch/steps", {"steps": [{**STEP, "session_id": "s"}]}),
]


# Coming in.


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer steppo_nobody"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": ALICE},
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": f"Bearer {ALICE} {ALICE}"},
        {"Authorization": "Bearer \xff"},
        {"X-Api-Key": ALICE},
    ],
    ids=["none", "unknown", "empty", "alone", "bare", "basic", "twice", "latin", "elsewhere"],
)
async def test_without_a_known_key_nothing_is_answered_and_nothing_done(
    serving: Serving, keyring: Keyring, control: Control, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    async with serving(keyring=keyring) as client:
        calls = [*EVERY_CALL, ("GET", "/openapi.json", None), ("GET", "/v1/nothing", None)]
        for method, path, body in calls:
            response = await client.request(method, path, json=body, headers=raw)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["type"] == "urn:steppo:problem:unauthorized"
            assert ALICE not in response.text
    assert control.num_begun == 0


async def test_a_known_key_is_let_in_whatever_the_case_of_the_word_bearer(
    serving: Serving, keyring: Keyring
) -> None:
    async with serving(keyring=keyring) as client:
        for word in ("Bearer", "bearer", "BEARER"):
            headers = {"Authorization": f"{word} {ALICE}"}
            assert (await client.get("/v1/envs", headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_load_balancer_needs_no_key(serving: Serving, keyring: Keyring, path: str) -> None:
    async with serving(keyring=keyring) as client:
        assert (await client.get(path)).status_code == 200
        assert (await client.get(f"{path}/")).status_code == 401


async def test_a_server_without_keys_asks_nobody(serving: Serving) -> None:
    async with serving() as client:
        for headers in ({}, bearer("steppo_any")):
            assert (await client.get("/v1/envs", headers=headers)).status_code == 200
    assert not NO_KEYS
    assert ANYBODY.owner == ""


# What for.


async def test_a_call_needs_its_scope(serving: Serving, keyring: Keyring) -> None:
    async with serving(keyring=keyring) as client:
        for method, path, body in EVERY_CALL:
            response = await client.request(method, path, json=body, headers=bearer(ADMIN))
            assert response.status_code == 403, (method, path)
            found = response.json()
            assert found["type"] == "urn:steppo:problem:forbidden"
            assert found["scope"] == ("expert" if path.endswith("expert") else "act")


async def test_the_key_of_a_policy_under_test_cannot_ask_the_expert(
    serving: Serving, keyring: Keyring
) -> None:
    async with serving(keyring=keyring) as client:
        await create(client, ALICE, session_id="s")
        await create(client, EXPERT, session_id="s")
        refused = await client.get("/v1/sessions/s/expert", headers=bearer(ALICE))
        assert (refused.status_code, refused.json()["scope"]) == (403, "expert")
        advice = await client.get("/v1/sessions/s/expert", headers=bearer(EXPERT))
        assert (advice.status_code, advice.json()["action"]) == (200, "end")


# Whose.


async def test_another_owners_session_cannot_be_told_from_one_that_is_not_there(
    serving: Serving, keyring: Keyring, control: Control
) -> None:
    async with serving(keyring=keyring) as client:
        assert (await create(client, EXPERT, session_id="s")).status_code == 201
        for method, path, body in EVERY_CALL:
            if "/sessions/s" not in path or path.endswith("expert"):
                continue
            path_of_none = path.replace("/sessions/s", "/sessions/t")
            mine = await client.request(method, path, json=body, headers=bearer(BOB))
            none = await client.request(method, path_of_none, json=body, headers=bearer(BOB))
            assert mine.status_code == none.status_code == 404, (method, path)
            assert mine.json()["detail"].replace("'s'", "'t'") == none.json()["detail"]
        batch = {"steps": [{**STEP, "session_id": name} for name in ("s", "t")]}
        response = await client.post("/v1/batch/steps", json=batch, headers=bearer(BOB))
        assert [item["status"] for item in response.json()["results"]] == [404, 404]
        leases = {"session_ids": ["s", "t"], "revive": True}
        response = await client.post("/v1/leases", json=leases, headers=bearer(BOB))
        assert [item["status"] for item in response.json()["results"]] == [404, 404]
        # Nothing of that touched it.
        shown = await client.get("/v1/sessions/s", headers=bearer(EXPERT))
        assert (shown.status_code, shown.json()["step_index"]) == (200, 0)
    assert control.acts == []


async def test_two_owners_can_use_one_id_and_neither_sees_the_other(
    serving: Serving, keyring: Keyring
) -> None:
    async with serving(keyring=keyring) as client:
        for key, seed in ((ALICE, 1), (BOB, 2)):
            created = await create(client, key, session_id="s", seed=seed)
            assert (created.status_code, created.json()["seed"]) == (201, seed)
            assert created.json()["session_id"] == "s"
        path = "/v1/sessions/s/steps"
        assert (await client.post(path, json=STEP, headers=bearer(ALICE))).status_code == 200
        for key, seed, step_index in ((ALICE, 1, 1), (BOB, 2, 0)):
            shown = (await client.get("/v1/sessions/s", headers=bearer(key))).json()
            assert (shown["seed"], shown["step_index"]) == (seed, step_index)
        await client.delete("/v1/sessions/s", headers=bearer(ALICE))
        assert (await client.get("/v1/sessions/s", headers=bearer(BOB))).status_code == 200


async def test_groups_and_forks_belong_to_who_made_them(serving: Serving, keyring: Keyring) -> None:
    async with serving(keyring=keyring) as client:
        body = {**SESSION, "size": 1, "group_id": "g"}
        for key in (ALICE, BOB):
            made = await client.post("/v1/groups", json=body, headers=bearer(key))
            assert made.status_code == 201
        forks = "/v1/sessions/g.0/forks"
        await client.post(forks, json={"fork_id": "f"}, headers=bearer(ALICE))
        for key, status in ((ALICE, 200), (BOB, 404)):
            response = await client.get("/v1/sessions/f.0", headers=bearer(key))
            assert response.status_code == status


async def test_a_key_that_has_all_its_sessions_leaves_room_for_others(
    serving: Serving, keyring: Keyring
) -> None:
    async with serving(keyring=keyring, max_sessions=3, max_sessions_per_key=2) as client:
        assert [(await create(client, ALICE)).status_code for _ in range(3)] == [201, 201, 429]
        assert [(await create(client, BOB)).status_code for _ in range(2)] == [201, 503]
        full = await create(client, ALICE, session_id="s")
        assert full.status_code == 503
        assert full.headers["retry-after"] == "5"


async def test_the_places_of_a_key_are_free_again_when_its_sessions_are_closed(
    serving: Serving, keyring: Keyring
) -> None:
    async with serving(keyring=keyring, max_sessions_per_key=1) as client:
        for _ in range(3):
            made = await create(client, ALICE)
            assert made.status_code == 201
            assert (await create(client, ALICE)).status_code == 429
            path = f"/v1/sessions/{made.json()['session_id']}"
            assert (await client.delete(path, headers=bearer(ALICE))).status_code == 204
        assert (await create(client, ALICE, task_id="none")).status_code == 404
        assert (await create(client, ALICE)).status_code == 201


# Sockets.


async def ask(keyring: Keyring, *headers: tuple[bytes, bytes]) -> tuple[list[Message], list[Any]]:
    """Open a socket through the middleware; return what was sent and who came through."""
    sent: list[Message] = []
    callers: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        callers.append(scope["state"]["caller"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/stream", "headers": list(headers)}
    await Authenticate(app, keyring)(scope, receive, send)
    return sent, callers


async def test_a_socket_without_a_known_key_is_closed_before_it_is_open(keyring: Keyring) -> None:
    for headers in ((), ((b"authorization", b"Bearer steppo_nobody"),)):
        sent, callers = await ask(keyring, *headers)
        assert [(message["type"], message["code"]) for message in sent] == [
            ("websocket.close", 1008)
        ]
        assert len(sent[0]["reason"].encode()) <= 123  # all that fits into the frame
        assert callers == []


async def test_a_socket_with_a_known_key_is_its_owners(keyring: Keyring) -> None:
    sent, callers = await ask(keyring, (b"authorization", f"Bearer {ALICE}".encode()))
    assert sent == []
    assert [(caller.owner, caller.scopes) for caller in callers] == [("alice", {KeyScope.ACT})]


# The file.


def test_the_file_holds_digests_and_no_keys(file: Path, keyring: Keyring) -> None:
    text = file.read_text()
    for key, scopes in SCOPES.items():
        assert key not in text
        caller = keyring.caller(key)
        assert caller.owner == key.removeprefix("steppo_")
        assert sorted(caller.scopes) == sorted(scopes)
        assert key.encode() not in repr(keyring._callers).encode()
    with pytest.raises(Unauthorized):
        keyring.caller(sha256(ALICE.encode()).hexdigest())


def test_a_new_key_has_256_random_bits_and_says_what_it_is_for() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("steppo_") and len(key) == 7 + 43 for key in keys)


GOOD = f'digest = "sha256:{"0" * 64}"\nscopes = ["act"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[keys.a]\n{GOOD}[keys.b]\n{GOOD}", r"\[keys.b\] has the digest of another key"),
        (f'[keys."a:b"]\n{GOOD}', "a name has 1 to 64 letters"),
        (f'[keys.""]\n{GOOD}', "a name has 1 to 64 letters"),
        (f"[keys.{'x' * 65}]\n{GOOD}", "a name has 1 to 64 letters"),
        (f'[keys.a]\n{GOOD}key = "steppo_x"\n', r"\[keys.a\]: key"),
        ('[keys.a]\nscopes = ["act"]\n', r"\[keys.a\]: digest"),
        ('[keys.a]\ndigest = "steppo_x"\nscopes = ["act"]\n', "digest"),
        (f"[keys.a]\n{GOOD.replace('0' * 64, '0' * 63)}", "digest"),
        (f"[keys.a]\n{GOOD.replace('0' * 64, 'A' * 64)}", "digest"),
        (f"[keys.a]\n{GOOD.replace('[', '').replace(']', '')}", "scopes"),
        (f"[keys.a]\n{GOOD.replace('act', '')}", "scopes"),
        (f"[keys.a]\n{GOOD.replace('act', 'root')}", "'act', 'expert', 'train' or 'admin'"),
        (f"[keys.a]\n{GOOD.replace(chr(34) + 'act' + chr(34), '')}", "scopes"),
        ("keys = 3\n", "keys is a table"),
        ("[keys]\na = 3\n", r"\[keys.a\]"),
        ("[keys.a\n", "is not TOML"),
    ],
    ids=range(16),
)
def test_a_mistake_in_the_file_is_told_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message) as caught:
        Keyring.from_toml(path)
    assert str(path) in str(caught.value)


def test_a_file_without_keys_asks_nobody_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("[server]\nport = 1\n")
    assert not Keyring.from_toml(path)
    with pytest.raises(MissingData):
        Keyring.from_toml(tmp_path / "none.toml")
