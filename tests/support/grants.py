"""The scripts of infra/grants as their statements, without comments."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "infra/grants"


def read_grants(database: str) -> list[str]:
    lines = (FOLDER / f"{database}.sql").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("--"))
    return [" ".join(statement.split()) for statement in text.split(";") if statement.strip()]
