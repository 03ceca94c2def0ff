"""The messages of the alerts queue: what they hold, their keys, their pauses. Pure, but for one refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync_core.adapters.alert_sink import ChannelSink
from sync_core.alert_delivery import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    TRIED_FOR,
    Delivery,
    addressees,
    backoff,
    decode,
    deliver_alert,
    encode,
    key_of,
    owe,
    pause_before,
)
from sync_core.domain.alert import Condition, Notice, Phase
from sync_core.domain.errors import PermanentError, RetryableError
from tests.support.alerts import AT, AlertQueue, Clock, notice, webhook

_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with something else."""

_times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
_names = st.text("abcdefgh-_", min_size=1, max_size=8)
_notices = st.builds(
    Notice,
    st.text(min_size=1),
    st.text(min_size=1),
    st.sampled_from(Condition),
    st.sampled_from(Phase),
    st.text(),
    st.text(),
    st.text(),
    _times,
    _times,
    st.integers(1, 10_000),
    st.none() | st.text(),
    st.lists(_names, max_size=3).map(tuple),
)
_deliveries = st.builds(
    Delivery,
    _notices,
    st.none() | st.lists(_names, max_size=3).map(tuple),
    st.integers(1, 1000),
    st.none() | _times,
    st.integers(1, 9),
)


@_patient
@given(_deliveries)
def test_a_delivery_survives_its_encoding(delivery: Delivery) -> None:
    assert decode(encode(delivery)) == delivery


@_patient
@given(_deliveries, _deliveries)
def test_a_key_is_that_of_one_notice_one_set_and_one_attempt(one: Delivery, other: Delivery) -> None:
    def facts(delivery: Delivery) -> Any:
        return delivery.notice.notice_id, sorted(delivery.owed or ()), delivery.attempt, delivery.round

    assert (key_of(one) == key_of(other)) == (facts(one) == facts(other))
    assert len(key_of(one)) <= 128
    assert key_of(replace(one, tried_since=AT)) == key_of(replace(one, tried_since=AT + TRIED_FOR))
    assert key_of(replace(one, attempt=one.attempt + 1)) != key_of(one)
    assert key_of(replace(one, round=one.round + 1)) != key_of(one)


_GOOD = json.loads(owe(notice()).body)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"notice": null}',
        json.dumps(_GOOD | {"attempt": 0}),
        json.dumps(_GOOD | {"attempt": "one"}),
        json.dumps(_GOOD | {"version": 2}),
        json.dumps(_GOOD | {"owed": 7}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"condition": "x" * 1_000_000}}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"at": "2026-01-01T00:00:00"}}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"at": 7}}),
        json.dumps(_GOOD | {"notice": _GOOD["notice"] | {"channels": None}}),
        json.dumps(_GOOD | {"tried_since": "2026-01-01T00:00:00"}),
    ],
)
def test_p21_a_message_that_cannot_be_understood_is_refused_with_a_reason(tmp_path: Path, body: str) -> None:
    with pytest.raises(PermanentError, match=r"A message of sync-alerts") as raised:
        deliver_alert(AlertQueue(tmp_path, Clock()), ChannelSink({}), {"ops": webhook("https://ops")}, body, AT)
    assert raised.value.remedy
    assert len(str(raised.value)) < 1000


# The pauses.


@_patient
@given(st.integers(-5, 10**9))
def test_pauses_grow_to_an_hour_and_stay(attempt: int) -> None:
    pause = backoff(attempt)
    assert FIRST_PAUSE <= pause <= LONGEST_PAUSE
    following = backoff(attempt + 1)
    assert following == (pause if attempt < 1 else min(LONGEST_PAUSE, 2 * pause))


@_patient
@given(st.integers(2, 1000), st.none() | st.timedeltas(timedelta(), timedelta(days=1000)))
def test_a_receiver_can_ask_for_more_patience_but_not_for_more_than_an_hour(
    attempt: int, asked: timedelta | None
) -> None:
    pause = pause_before(attempt, RetryableError("x", "It is busy.", retry_after=asked))
    assert backoff(attempt - 1) <= pause <= LONGEST_PAUSE
    assert pause >= min(asked or timedelta(), LONGEST_PAUSE)


def test_addressees_of_a_notice() -> None:
    channels = {"a": webhook("", "a", ("failed",)), "b": webhook("", "b"), "c": webhook("", "c", ("stale",))}
    assert addressees(notice(), channels) == ("a", "b")
    assert addressees(notice(channels=("c", "x", "b", "x")), channels) == ("x", "b")
    assert addressees(notice(), {}) == ()
