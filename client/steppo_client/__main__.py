"""`python -m steppo_client` is the `steppo` command."""

from steppo_client.cli import main

main()
