"""One installation of the control plane, whose engine is a stand-in in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.control import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The pipeline `orders`, hourly, and three rows at its source."""
    made = Site(tmp_path)
    made.has(3)
    return made
