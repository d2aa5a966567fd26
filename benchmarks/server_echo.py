"""The measure of a server's cost: FastAPI and pydantic as in their tutorial, on uvloop and httptools.

Run by `benchmarks/server.py`. Prints where it serves and then does so until it is ended. A step comes as
JSON, is validated, and goes back as a reply with the text that it sent: no environment, no session, no
journal, no middleware.
"""

import socket
import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Step(BaseModel):
    """What is sent."""

    step_index: int
    action: str


class Reply(BaseModel):
    """What comes back."""

    session_id: str
    step_index: int
    observation: str
    reward: float
    terminated: bool
    truncated: bool


@app.post("/v1/sessions/{session_id}/steps")
async def step(session_id: str, body: Step) -> Reply:
    """Send back what came."""
    return Reply(
        session_id=session_id,
        step_index=body.step_index,
        observation=body.action,
        reward=0.0,
        terminated=False,
        truncated=False,
    )


def main() -> None:
    """Serve on a free port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sys.stdout.write(f"serving http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="error"
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
