"""When a pipeline is due, and what happens when a run of it fails: declared facts, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Cron:
    """Local times in an IANA zone. `catch_up` says whether missed slots run once, for the latest, or each (P22)."""

    expression: str
    timezone: str = "UTC"
    catch_up: Literal["latest", "all"] = "latest"
    type: Literal["cron"] = "cron"


@dataclass(frozen=True)
class Every:
    """Slots at whole multiples of `seconds` since 1970-01-01T00:00:00Z."""

    seconds: float
    catch_up: Literal["latest", "all"] = "latest"
    type: Literal["every"] = "every"


@dataclass(frozen=True)
class After:
    """Once each of these pipelines has succeeded anew."""

    pipelines: tuple[str, ...]
    type: Literal["after"] = "after"


@dataclass(frozen=True)
class OnDemand:
    """Only when asked for."""

    type: Literal["on_demand"] = "on_demand"


Schedule = Cron | Every | After | OnDemand


@dataclass(frozen=True)
class Retry:
    """At most `attempts` in all; before attempt n + 1 a pause of `delay_seconds` × 2^(n - 1), at most `max_delay_seconds`."""

    attempts: int = 3
    delay_seconds: float = 60.0
    max_delay_seconds: float = 3600.0

    def pause_after(self, attempt: int) -> float:
        """Seconds between the failure of an attempt and the begin of the next."""
        return min(self.max_delay_seconds, self.delay_seconds * 2.0 ** min(attempt - 1, 60))
