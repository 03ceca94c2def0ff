"""Write docs/cli.md from the commands of `uds`."""

from __future__ import annotations

from pathlib import Path

from sync_core.cli import app
from sync_core.cli.reference import cli_page


def main() -> None:
    """Write the page beneath the repository's root."""
    path = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
    path.write_text(cli_page(app), encoding="utf-8")


if __name__ == "__main__":
    main()
