"""Manifest and result survive the way through JSON, and a wrong document is refused by the name of its field."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sync_core.domain.codec import from_json, to_json
from sync_core.domain.connection import Authentication, Connection, SecretReference
from sync_core.domain.pipeline import Cursor, Derive, Filter, LoadMode, Pipeline, Rename, Source, Target
from sync_core.domain.run import (
    Manifest,
    Outcome,
    Range,
    RowCounts,
    RunError,
    RunKind,
    RunOrder,
    RunResult,
    Seconds,
    Seen,
    Window,
)
from sync_core.domain.watermark import CursorType, Watermark

MARK = Watermark.parse(CursorType.TIMESTAMP, "2024-01-31T23:59:59.123456789")
PIPELINE = Pipeline(
    "orders",
    Source("oracle", table="SALES.ORDERS"),
    Target("lake", "orders"),
    LoadMode.MERGE,
    Cursor("UPDATED_AT", CursorType.TIMESTAMP, lookback=600),
    ("ORDER_ID",),
    types={"PAYLOAD": "string"},
    transformations=(Filter("STATUS <> 'DRAFT'"), Rename({"ORDER_ID": "order_id"}), Derive("total", "a + b")),
)
MANIFEST = Manifest(
    "b" * 64,
    {"oracle": Connection("oracle", "oracle", auth=Authentication.PASSWORD, secret=SecretReference("kv", "pw"))},
    (
        RunOrder(
            "k" * 64,
            PIPELINE,
            RunKind.BACKFILL,
            range=Range(since=MARK),
            watermark=MARK,
            seen=Seen(MARK, datetime(2024, 1, 1, tzinfo=UTC)),
        ),
    ),
)
RESULT = RunResult(
    "orders",
    "k" * 64,
    "b" * 64,
    RunKind.INCREMENTAL,
    2,
    Outcome.FAILED,
    watermark=MARK,
    window=Window(None, MARK, MARK),
    rows=RowCounts(read=3, updated=2),
    seconds=Seconds(1.5, {"write": 1.0}),
    error=RunError("source.missing", "permanent", "gone", "find it"),
    finished_at=datetime(2024, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize("value", [MANIFEST, RESULT])
def test_a_document_survives_json(value: Any) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


def test_a_field_of_a_newer_writer_is_passed_over() -> None:
    assert from_json(RunResult, {**to_json(RESULT), "added_later": 1}) == RESULT


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("runs", 0, "pipeline", "mode"), "upsert", "upsert"),
        (("runs", 0, "attempt"), "1", "attempt"),
        (("runs", 0, "pipeline", "transformations", 0, "type"), "explode", "explode"),
        (("runs", 0, "pipeline", "null_keys"), "maybe", "null_keys"),
    ],
)
def test_a_wrong_document_is_refused_by_name(path: tuple[Any, ...], value: Any, field: str) -> None:
    document = to_json(MANIFEST)
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=field):
        from_json(Manifest, document)


def test_a_missing_field_is_refused_by_name() -> None:
    document = to_json(MANIFEST)
    del document["runs"][0]["run_key"]
    with pytest.raises(ValueError, match=r"runs\[0\]\.run_key: missing"):
        from_json(Manifest, document)


def test_renames_are_followed_through_chains() -> None:
    steps = (Rename({"A": "b"}), Rename({"b": "c", "X": "y"}))
    pipeline = Pipeline(
        "p",
        Source("s", "t"),
        Target("d", "t"),
        LoadMode.MERGE,
        Cursor("X", CursorType.NUMBER),
        ("A",),
        transformations=steps,
    )
    assert pipeline.target_keys == ("c",)
    assert pipeline.target_cursor == "y"
