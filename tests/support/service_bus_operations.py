"""Requests to a queue's management node, as functions of the queue, the request's body and the time."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from proton import UNDESCRIBED, Array, Data, Message

from tests.support.service_bus_entities import BrokerQueue, Fault, milliseconds

_PLAIN: Any = UNDESCRIBED


def renew_lock(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    expirations: list[Any] = []
    for token in _elements(body["lock-tokens"]):
        message = found.held_by(uuid.UUID(str(token)))
        message.locked_until = now + found.lock
        expirations.append(milliseconds(message.locked_until))
    return {"expirations": Array(_PLAIN, Data.TIMESTAMP, *expirations)}


def update_disposition(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    reason, text = body.get("deadletter-reason"), body.get("deadletter-description")
    for token in _elements(body["lock-tokens"]):
        found.settle(found.held_by(uuid.UUID(str(token))), str(body["disposition-status"]), reason, text)
    return {}


def schedule_message(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    numbers: list[int] = []
    for item in body["messages"]:
        raw = bytes({str(name): value for name, value in item.items()}["message"])
        message = Message()
        message.decode(raw)
        numbers.append(found.put(raw, message, now) or 0)
    return {"sequence-numbers": Array(_PLAIN, Data.LONG, *numbers)}


def cancel_scheduled_message(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    for number in body["sequence-numbers"].elements:
        if found.messages.pop(number, None) is None:
            raise Fault("com.microsoft:message-not-found", str(number))
    return {}


def peek_message(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any] | None:
    session = body.get("session-id")
    numbers = [
        number
        for number, message in sorted(found.messages.items())
        if number >= body["from-sequence-number"] and (not session or message.session == session)
    ]
    peeked = [{"message": found.messages[number].encode(locked=False)} for number in numbers[: body["message-count"]]]
    return {"messages": peeked} if peeked else None


def receive_by_sequence_number(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    received: list[dict[str, Any]] = []
    for number in body["sequence-numbers"].elements:
        message = found.messages.get(number)
        if message is None or not message.deferred:
            raise Fault("com.microsoft:message-not-found", str(number))
        token = uuid.UUID(bytes_le=found.lock_message(message, now).encode())
        received.append({"message": message.encode(locked=True), "lock-token": token})
    return {"messages": received}


def renew_session_lock(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    session = body["session-id"]
    if session not in found.session_locks:
        raise Fault("com.microsoft:session-lock-lost")
    found.session_locks[session] = (found.session_locks[session][0], now + found.lock)
    return {"expiration": milliseconds(now + found.lock)}


def get_session_state(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    return {"session-state": found.session_state.get(body["session-id"])}


def set_session_state(found: BrokerQueue, body: dict[str, Any], now: float) -> dict[str, Any]:
    state = body["session-state"]
    # A copy: proton hands out views of memory that it frees.
    found.session_state[body["session-id"]] = None if state is None else bytes(state)
    return {}


def _elements(tokens: Any) -> list[Any]:
    return list(tokens.elements if isinstance(tokens, Array) else tokens)


OPERATIONS: dict[str, Callable[[BrokerQueue, dict[str, Any], float], dict[str, Any] | None]] = {
    "renew-lock": renew_lock,
    "update-disposition": update_disposition,
    "schedule-message": schedule_message,
    "cancel-scheduled-message": cancel_scheduled_message,
    "peek-message": peek_message,
    "receive-by-sequence-number": receive_by_sequence_number,
    "renew-session-lock": renew_session_lock,
    "get-session-state": get_session_state,
    "set-session-state": set_session_state,
}
"""What a queue's management node does, by the protocol's names; None means that there is nothing."""
