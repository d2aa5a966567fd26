"""One script a question; each prints a ratio against a named baseline."""

import sys
from pathlib import Path

# A script's own folder is on the path, where textworld.py would hide the library of that name.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE]
