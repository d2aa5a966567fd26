"""What the OpenAPI document shows beside the schemas: one episode of KeyDoor, call by call.

A test sends the requests in turn and compares the replies with these.
"""

from pydantic import JsonValue

__all__ = [
    "ACTIONS",
    "BATCH_SESSIONS",
    "BATCH_STEPS",
    "CREATE_GROUP",
    "CREATE_SESSION",
    "ENV_DETAIL",
    "ENV_LIST",
    "EXPERT_REPLY",
    "FORK_REPLY",
    "FORK_REQUEST",
    "GROUP_REPLY",
    "HEALTH",
    "LEASE_REQUEST",
    "LEASE_RESULTS",
    "PROBLEM",
    "SESSION_REPLY",
    "SESSION_RESULTS",
    "STEP_ITEM",
    "STEP_REPLY",
    "STEP_REQUEST",
    "STEP_RESULTS",
    "TASK_PAGE",
]

Document = dict[str, JsonValue]

_SYSTEM = (
    "You walk on a grid. Row 0 is in the north, column 0 in the west. Fetch the key, then go to the "
    "door. Think briefly, then give one command:\n<think> key is north </think> <act> go north </act>"
    "\nThe commands are go north, go south, go west and go east."
)
_BEGINNING = (
    "you are at r1 c4 . key at r0 c2 . door at r2 c1 . you hold nothing . turns left 24 . move :"
)
_AFTER_NORTH = (
    "you are at r0 c4 . key at r0 c2 . door at r2 c1 . you hold nothing . turns left 23 . move :"
)
_BEGINNING_TRACE = "9fb909b90ec7988dfb68c782322786f7"
_LEASE_EXPIRES_AT = 1795198898.8

_TASK: Document = {"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0}


def _observation(text: str) -> Document:
    return {
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}],
        "tools": [],
        "text": text,
        "admissible_actions": ["go north", "go south", "go west", "go east"],
    }


def _begun(session_id: str) -> Document:
    return {
        "session_id": session_id,
        "env_id": "steppo/KeyDoor-v0",
        "task_id": "dev/0",
        "split": "dev",
        "labels": {"distance": 6},
        "seed": 0,
        "step_index": 0,
        "observation": _observation(_BEGINNING),
        "state_key": "b7ed1724450ee524aebdff304063dfd9",
        "trace_key": _BEGINNING_TRACE,
        "terminated": False,
        "truncated": False,
        "trainable": True,
        "lease_expires_at": _LEASE_EXPIRES_AT,
    }


def _stepped(session_id: str) -> Document:
    return {
        "session_id": session_id,
        "env_id": "steppo/KeyDoor-v0",
        "task_id": "dev/0",
        "seed": 0,
        "step_index": 0,
        "observation": _observation(_AFTER_NORTH),
        "state_key": "5bc690103e37c39cc4e45f9ed8771789",
        "trace_key": "a939b4bba39671408194b00ff66be7aa",
        "reward": 0.0,
        "reward_terms": {"goal": 0.0},
        "terminated": False,
        "truncated": False,
        "trainable": True,
        "info": {"success": False, "step_index": 0, "rejected": [], "num_rejected": 0},
        "lease_expires_at": _LEASE_EXPIRES_AT,
    }


PROBLEM: Document = {
    "type": "urn:steppo:problem:step-index-mismatch",
    "title": "Wrong step index",
    "status": 409,
    "detail": "the next step of session mine is 1, not 3",
    "instance": "/v1/sessions/mine/steps",
    "expected": 1,
}
_UNKNOWN: Document = {
    "type": "urn:steppo:problem:unknown-session",
    "title": "Unknown session",
    "status": 404,
    "detail": "there is no session 'closed'",
}

_ENVIRONMENT: Document = {
    "env_id": "steppo/KeyDoor-v0",
    "registered_id": "steppo/KeyDoor-v0",
    "summary": "A grid of `size` x `size` cells; the reward is 1 at the door with the key, else 0.",
    "is_available": True,
    "problem": None,
}
ENV_LIST: Document = {"environments": [_ENVIRONMENT]}
ENV_DETAIL: Document = {
    **_ENVIRONMENT,
    "splits": {"train": 100_000, "dev": 512, "test": 512},
    "data_version": "keydoor-6-1",
    "options": {
        "type": "object",
        "properties": {"size": {"type": "integer", "minimum": 2, "maximum": 20, "default": 6}},
    },
    "fixed_options": [],
    "step_limit": 24,
}
"""Its `options` are shortened: an environment has more."""
TASK_PAGE: Document = {
    "tasks": [
        {"task_id": "dev/0", "split": "dev", "index": 0, "labels": {"distance": 6}},
        {"task_id": "dev/1", "split": "dev", "index": 1, "labels": {"distance": 5}},
    ],
    "next_cursor": "2",
    "num_tasks": 512,
}
"""The first two of a split."""

CREATE_SESSION: Document = {**_TASK, "session_id": "mine"}
SESSION_REPLY = _begun("mine")

STEP_REQUEST: Document = {"step_index": 0, "action": "<act> go north </act>"}
STEP_REPLY = _stepped("mine")
ACTIONS: list[JsonValue] = [
    "<think> key is north </think> <act> go north </act>",
    {
        "role": "assistant",
        "content": "Who wrote it?",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "search", "arguments": '{"query": "author of Emma"}'},
            }
        ],
    },
]
"""A response's text, and an assistant message."""

EXPERT_REPLY: Document = {
    "action": "<think> key is west </think> <act> go west </act>",
    "distance": 5,
}
"""After the step."""

FORK_REQUEST: Document = {"at_step": 0, "count": 2, "fork_id": "again"}
FORK_REPLY: Document = {
    "parent_id": "mine",
    "at_step": 0,
    "fork_id": "again",
    "trace_key": _BEGINNING_TRACE,
    "sessions": [_begun("again.0"), _begun("again.1")],
}

CREATE_GROUP: Document = {**_TASK, "size": 2, "group_id": "pair"}
GROUP_REPLY: Document = {
    "group_id": "pair",
    "trace_key": _BEGINNING_TRACE,
    "sessions": [_begun("pair.0"), _begun("pair.1")],
}

BATCH_SESSIONS: Document = {"sessions": [{**_TASK, "session_id": "many-0"}]}
SESSION_RESULTS: Document = {"results": [{"status": 201, "session": _begun("many-0")}]}
STEP_ITEM: Document = {**STEP_REQUEST, "session_id": "many-0"}
BATCH_STEPS: Document = {"steps": [STEP_ITEM, {**STEP_REQUEST, "session_id": "closed"}]}
STEP_RESULTS: Document = {
    "results": [
        {"status": 200, "step": _stepped("many-0")},
        {"status": 404, "problem": _UNKNOWN},
    ]
}

LEASE_REQUEST: Document = {"session_ids": ["mine", "closed"], "revive": True}
LEASE_RESULTS: Document = {
    "results": [
        {
            "session_id": "mine",
            "status": 200,
            "lease_expires_at": _LEASE_EXPIRES_AT,
            "problem": None,
        },
        {
            "session_id": "closed",
            "status": 404,
            "lease_expires_at": None,
            "problem": {**_UNKNOWN, "instance": None},
        },
    ]
}

HEALTH: Document = {"status": "ok", "version": "0.1.0", "num_sessions": 1, "max_sessions": 20_000}
