"""Runs that have closed, and what OpenLineage's specification requires of an event about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jsonschema

from sync_core.domain.run import Outcome, RowCounts, RunError, RunKind, RunRecord, RunResult, RunState
from tests.support.control import START

FACET = {"type": "object", "required": ["_producer", "_schemaURL"]}
FACETS = {"type": "object", "additionalProperties": FACET}
DATASETS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["namespace", "name"],
        "properties": {"facets": FACETS, "inputFacets": FACETS, "outputFacets": FACETS},
    },
}
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job", "eventType"],
    "properties": {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": FACETS},
        },
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": FACETS},
        },
        "inputs": DATASETS,
        "outputs": DATASETS,
    },
}
"""What OpenLineage 2-0-2 requires of a run event. The client's package does not carry the specification's own schema."""


def valid(event: dict[str, Any]) -> dict[str, Any]:
    checker = jsonschema.FormatChecker()
    jsonschema.validate(event, RUN_EVENT, format_checker=checker)
    return event


def closed(state: RunState, outcome: Outcome, error: RunError | None = None) -> RunRecord:
    result = RunResult(
        "orders", "k" * 64, "b" * 64, RunKind.INCREMENTAL, 1, outcome, error=error,
        rows=RowCounts(read=9, inserted=4, updated=3, deleted=1),
    )  # fmt: skip
    return RunRecord(
        "k" * 64, "orders", RunKind.INCREMENTAL, 1, state, "b" * 64, START, slot=START - timedelta(minutes=1),
        closed_at=START + timedelta(minutes=2), result=result,
    )  # fmt: skip
