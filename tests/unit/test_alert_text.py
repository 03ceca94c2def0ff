"""A notice as people read it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sync_core.adapters.alert_text import body, spell, title
from sync_core.domain.alert import Condition, Phase
from tests.support.alerts import AT, notice


def test_the_text_of_a_notice() -> None:
    assert title(notice()) == "orders: a run failed"
    assert body(notice()).splitlines() == [
        "The run of orders failed: the table SALES.ORDERS is not there. Æøå",
        "",
        "Pipeline: orders",
        "Since: 2026-01-01 12:00 UTC",
        "What to do: Create the table, or mend its name in pipelines.yml.",
        "Owner: team-sales",
    ]


def test_the_text_of_a_repetition_and_of_a_recovery() -> None:
    later = AT + timedelta(hours=4, minutes=5)
    repeated = notice(phase=Phase.REPEATED, at=later, count=2)
    assert title(repeated) == "Still: orders: a run failed"
    assert "Since: 2026-01-01 12:00 UTC, for 4 h 5 min; this is notice 2" in body(repeated)
    over = notice(phase=Phase.RECOVERED, at=later, remedy="", owner=None)
    assert title(over) == "Recovered: orders: a run failed"
    assert body(over).splitlines()[2:] == [
        "Pipeline: orders",
        "Began: 2026-01-01 12:00 UTC",
        "Over since: 2026-01-01 16:05 UTC, after 4 h 5 min",
    ]


def test_every_condition_and_phase_has_a_text() -> None:
    titles = {title(notice(condition=condition, phase=phase)) for condition in Condition for phase in Phase}
    assert len(titles) == len(Condition) * len(Phase)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(minutes=7, seconds=50), "7 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(days=-1), "less than a minute"),
    ],
)
def test_durations(duration: timedelta, text: str) -> None:
    assert spell(duration) == text
