"""Keeps addresses out of the log: the libraries that send alerts log whole addresses, and these hold secrets (P26)."""

from __future__ import annotations

import logging
import re

_STATUS = re.compile(r"\berror=(\d{3})\b")


def keep_addresses_out_of_logs() -> None:
    """Silence what the HTTP libraries and Apprise say of the addresses they call. Any number of calls.

    httpx logs each request's address with its query at INFO; httpcore and urllib3 log paths and headers at DEBUG; their
    warnings stay. Apprise masks what it takes for a password, which is not all that is secret in an address: of its
    warnings the HTTP status stays.
    """
    for name in ("httpx", "httpcore", "urllib3", "apprise"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    logging.getLogger("apprise").addFilter(_only_status)


def _only_status(record: logging.LogRecord) -> logging.LogRecord | bool:
    status = _STATUS.search(record.getMessage())
    if status is None:
        return False
    text = f"The service answered with status {status[1]}."
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, text, None, None)
