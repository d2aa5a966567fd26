"""The files here are read by the type checkers and never run."""

collect_ignore_glob = ["*.py"]
