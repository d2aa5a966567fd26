"""Builds the wheel, installs it into an environment of its own, and uses it there.

Editable installs hide what a wheel lacks (data files, packages, entry points), so this runs outside
the source tree. The dependencies are taken from the environment that runs the script; what is checked
is this project's own wheel.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

USE = """
import json, sys
import gymnasium, steppo_env
from steppo_env.registry import env_class, registered_ids
where = {env_id: sys.modules[env_class(env_id).__module__].__file__ for env_id in registered_ids()}
env = gymnasium.make("steppo/KeyDoor-v0")
env.reset(seed=0)
for env_id in registered_ids():
    made = steppo_env.make(env_id)
    made.start(made.tasks.at("dev", 0), 0)
    made.advance(made.expert())
    made.close()
print(json.dumps(where))
"""


def run(*command: str, cwd: Path) -> str:
    """Run a command and return its output; show it when the command fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def tracked_files() -> set[str]:
    """Return what git tracks below the packaged folders, as paths inside the wheel."""
    listed = run("git", "ls-files", "steppo_env", "envs", "server", "client", cwd=ROOT).splitlines()
    packaged = set()
    for name in listed:
        parts = Path(name).parts
        inner = parts if parts[0] == "steppo_env" else parts[1:]
        if len(inner) > 1:
            packaged.add("/".join(inner))
    return packaged


def main() -> None:
    """Build, compare, install, use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(
            *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
            *("--outdir", str(folder), str(ROOT)),
            cwd=folder,
        )
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            missing = sorted(tracked_files() - set(archive.namelist()))
        if missing:
            raise SystemExit(f"the wheel lacks {len(missing)} tracked files, such as {missing[:5]}")

        run(sys.executable, "-m", "venv", str(folder / "venv"), cwd=folder)
        python = str(folder / "venv" / "bin" / "python")
        install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
        run(python, *install, cwd=folder)
        # A .pth file lends the dependencies; the wheel's own packages come first on the path.
        site = Path(
            run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
        )
        (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        where = json.loads(run(python, "-c", USE, cwd=folder))
        outside = [path for path in where.values() if not Path(path).is_relative_to(site)]
        if outside:
            raise SystemExit(f"these were not imported from the wheel: {outside}")
        listed = run(str(folder / "venv" / "bin" / "steppo"), "envs", "--json", cwd=folder)
        if not all(env["is_available"] for env in json.loads(listed)["environments"]):
            raise SystemExit(f"an environment cannot be used from the wheel: {listed}")
        sys.stdout.write(f"{wheel.name}: every tracked file is in it and every environment plays\n")


if __name__ == "__main__":
    main()
