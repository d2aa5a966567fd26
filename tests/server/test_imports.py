"""What a worker's process has to load: at each replacement of a worker somebody waits for it."""

import subprocess
import sys


def test_a_workers_process_loads_neither_the_application_nor_a_database() -> None:
    script = "import sys, steppo_server.engines.child; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {
        "fastapi",
        "prometheus_client",
        "pydantic_settings",
        "sqlalchemy",
        "starlette",
        "uvicorn",
    }
    assert packages & heavy == set()
