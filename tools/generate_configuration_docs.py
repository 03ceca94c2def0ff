"""Write what is generated from the configuration model: docs/configuration.md and config/schema.json."""

from __future__ import annotations

from pathlib import Path

from sync_core.catalog.reference import configuration_page, json_schema_text


def main() -> None:
    """Write the files beneath the repository's root."""
    root = Path(__file__).resolve().parent.parent
    files = {"docs/configuration.md": configuration_page(), "config/schema.json": json_schema_text()}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
