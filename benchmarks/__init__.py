"""One script a question; each prints a ratio against a named baseline."""
