"""tools/build-wheel: the engine and the command line as a wheel, the same bytes for the same commit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.delivery.commands import ROOT, main, run, say
from tools.delivery.release import digest
from tools.delivery.source import Source, read_source


def build_wheel(output: Path, source: Source) -> Path:
    """Build the wheel into `output`, where it is the only one then: the bundle takes the wheel it finds."""
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("universal_data_sync-*.whl"):
        old.unlink()
    # hatchling of .venv, which is locked by its hash: a build environment of its own would fetch whatever is newest.
    command = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(output.absolute()))
    run(*command, environment={"SOURCE_DATE_EPOCH": str(source.at)})
    return next(output.glob("universal_data_sync-*.whl"))


def work() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="tools/build-wheel", description="Build the wheel.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder to write to (dist)")
    wheel = build_wheel(parser.parse_args().output, read_source())
    say(f"{wheel}  sha256 {digest(wheel)}")


if __name__ == "__main__":
    main("tools/build-wheel", work)
