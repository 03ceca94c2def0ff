"""What Delta's errors mean, by their text."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from spark_entry.adapters.delta_table import DeltaTables
from sync_core.domain.connection import Connection

CALLING = "An error occurred while calling o73.sql.\n: "


@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        # Two runs create the table at once.
        ("io.delta.exceptions.ProtocolChangedException: [DELTA_PROTOCOL_CHANGED] ...", "target.conflict", "retryable"),
        ("io.delta.exceptions.MetadataChangedException: [DELTA_METADATA_CHANGED] ...", "target.conflict", "retryable"),
        ("[DELTA_CONCURRENT_APPEND.WITHOUT_HINT] ...", "target.conflict", "retryable"),
        ("io.delta.exceptions.ConcurrentWriteException: ...", "target.conflict", "retryable"),
        ("[DELTA_UNSUPPORTED_FEATURES_FOR_WRITE] ...", "delta.failed", "permanent"),
    ],
)
def test_a_conflict_is_tried_again_wherever_it_is_met(text: str, code: str, kind: str) -> None:
    meaning = DeltaTables(Connection("lake", "databricks", path="lake"), MagicMock()).translate(
        Exception(CALLING + text)
    )
    assert meaning is not None
    assert (meaning.code, meaning.kind) == (code, kind)
