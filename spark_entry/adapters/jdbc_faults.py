"""Vendor errors in the reader's terms, made in one place."""

from __future__ import annotations

import re

from spark_entry.adapters.jdbc_connection import DatabaseFault
from spark_entry.dialects.base import Dialect
from sync_core.domain.connection import Connection
from sync_core.domain.errors import AGAIN, PermanentError, RetryableError, SyncError

_ADDRESS = re.compile(r"jdbc:\S+")
_CREDENTIAL = re.compile(r"(?i)\b(password|pwd|secret|accesstoken|token)\s*[=:]\s*\S+")


def clean(message: str) -> str:
    """A driver's message on one line, without addresses and without anything that looks like a credential."""
    text = _CREDENTIAL.sub(r"\1=***", _ADDRESS.sub("the address", message))
    text = " ".join(text.split()).rstrip(". ")
    return text if len(text) <= 400 else text[:400] + " ..."


def to_error(connection: Connection, dialect: Dialect, fault: DatabaseFault, role: str, name: str) -> SyncError:
    """The fault as an error; `role` is source or target, `name` the object that was worked on."""
    who = f"Connection {connection.name}"
    said = f"{dialect.name} says: {clean(fault.message)}."
    where = f"{connection.host or 'its address'}{f':{connection.port}' if connection.port else ''}"
    match dialect.fault(fault.state, fault.vendor_code, fault.message):
        case "unreachable":
            return RetryableError(
                "database.unreachable",
                f"{who}: {where} cannot be reached. {said}",
                "Check host, port and firewall, or wait for it.",
            )
        case "sign_in":
            return PermanentError(
                "database.sign_in",
                f"{who}: the sign-in as {connection.username or connection.client_id or 'this user'} was refused. {said}",
                "Check the user, the secret and the database's name.",
            )
        case "certificate":
            return PermanentError(
                "database.certificate",
                f"{who}: no secure connection to {where} could be made. {said}",
                "Give the driver the right certificates in options, or set tls or trust_server_certificate.",
            )
        case "missing":
            return PermanentError(
                f"{role}.missing", f"{who}: {name} or a part of it does not exist. {said}", "Check its name."
            )
        case "denied":
            privileges = "SELECT" if role == "source" else "SELECT, INSERT, UPDATE, DELETE and the creation of tables"
            return PermanentError(
                "database.denied",
                f"{who}: the user {connection.username or ''} may not use {name}. {said}",
                f"Grant {privileges} on it, and the use of its schema: infra/grants has a script, docs/grants.md the reasons.",
            )
        case "full":
            return PermanentError(
                "database.full",
                f"{who}: the database has no room left while working on {name}. {said}",
                "Make room, then run again.",
            )
        case "busy":
            return RetryableError(
                "database.busy",
                f"{who}: {name} cannot be used at the moment. {said}",
                AGAIN,
            )
        case "duplicate":
            return RetryableError(
                "database.duplicate",
                f"{who}: another writer put the same key into {name}, or two keys of the source are one there. {said}",
                f"{AGAIN} If it fails each time, compare the keys without case and blanks at the end.",
            )
        case "exists":
            return RetryableError(
                "target.conflict",
                f"{who}: {name} or a column of it was to be created and is there already. {said}",
                f"{AGAIN} If it fails each time, the user may not see what stands in its place.",
            )
        case "snapshot":
            return RetryableError(
                "database.snapshot",
                f"{who}: the database gave up the state that {name} was read at. {said}",
                AGAIN,
            )
        case "value":
            return PermanentError(
                "database.value",
                f"{who}: a value does not fit {name}. {said}",
                "Correct the value or the column's type.",
            )
        case "other":
            return PermanentError("database.failed", f"{who}: a statement on {name} failed. {said}", "")
