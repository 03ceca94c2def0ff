"""What every section of the configuration has in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from sync_core.catalog.values import Name, matching, refuse


class Section(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


def filled(value: Any) -> Any:
    """Refuse a mapping or a list without entries."""
    if not value:
        raise refuse("is empty", "write at least one entry, or leave the key out")
    return value


def distinct(value: list[str]) -> list[str]:
    """Refuse a list that is empty or names something twice."""
    seen: set[str] = set()
    for name in filled(value):
        if name.lower() in seen:
            raise refuse(f"names {name} twice", "name it once")
        seen.add(name.lower())
    return value


Names = Annotated[list[Name], AfterValidator(distinct)]
SecretName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_.@-]{1,128}",
        "the name of a secret or its scope: letters, digits, _ . - @",
        "oracle-password",
    ),
]
