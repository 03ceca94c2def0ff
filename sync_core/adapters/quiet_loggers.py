"""Keeps addresses out of the log: the libraries that send alerts log whole addresses, and these hold secrets (P26)."""

from __future__ import annotations

import logging


def keep_addresses_out_of_logs() -> None:
    """Silence what the HTTP libraries and Apprise say of the addresses they call; warnings of the former stay.

    httpx logs each request's address with its query at INFO; httpcore and urllib3 log paths and headers at DEBUG.
    Apprise masks what it takes for a password, which is not all that is secret in an address. Any number of calls.
    """
    for name in ("httpx", "httpcore", "urllib3"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    # Not disabled: a notification's result is told its failures through this logger.
    logging.getLogger("apprise").propagate = False
