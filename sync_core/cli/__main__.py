"""`python -m sync_core.cli`."""

from sync_core.cli import main

main()
