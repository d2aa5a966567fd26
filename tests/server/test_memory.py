"""What there is when a server starts is never looked at again by the collector."""

import subprocess
import sys

CODE = """
import gc
from steppo_server.memory import collect_rarely
before = gc.get_count(), gc.get_threshold()
collect_rarely()
assert gc.isenabled()
assert gc.get_freeze_count() > 1_000
assert all(new > old for new, old in zip(gc.get_threshold(), before[1]))
class Ring: pass
for _ in range(20_000):
    ring = Ring()
    ring.itself = ring
assert sum(isinstance(thing, Ring) for thing in gc.get_objects()) < 12_000
"""


def test_old_objects_are_left_alone_and_new_rings_are_freed() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=60)
