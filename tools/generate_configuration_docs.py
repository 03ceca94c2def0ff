"""Write what is generated from the configuration model: docs/configuration.md and the starter in config/."""

from __future__ import annotations

from pathlib import Path

from sync_core.catalog.reference import configuration_page
from sync_core.cli.init import starter


def main() -> None:
    """Write the files beneath the repository's root."""
    root = Path(__file__).resolve().parent.parent
    files = {"docs/configuration.md": configuration_page()}
    files |= {f"config/{name}": text for name, text in starter().items()}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
