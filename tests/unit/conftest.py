"""One installation of the control plane, whose engine is a stand-in in this process, and what its telemetry told."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.control import Site
from tests.support.telemetry import Recorder


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The pipeline `orders`, hourly, and three rows at its source."""
    made = Site(tmp_path)
    made.has(3)
    return made


@pytest.fixture
def recorder() -> Generator[Recorder]:
    made = Recorder()
    yield made
    made.telemetry.close()
