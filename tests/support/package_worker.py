"""The Functions worker in a process of its own, on an unpacked package: `python -I -S package_worker.py PACKAGE WORKER`.

PACKAGE is the folder of the app, WORKER one that holds the worker's own code and nothing else. Prints one JSON
document: what the functions answered, and the modules that came from neither of them nor from the standard library.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

PACKAGES = ".python_packages/lib/site-packages"


async def drive(package: Path) -> dict[str, Any]:
    from functions_worker import Worker  # type: ignore[import-not-found]

    worker: Any = Worker(str(package))
    await worker.start()
    try:
        health = await worker.http("health", "GET", "health")
        await worker.timer("tick")
        pipelines = await worker.http("http", "GET", "pipelines")
        return {"functions": sorted(worker.functions), "health": health, "pipelines": pipelines}
    finally:
        worker.stop()


def main(package: Path, worker: Path) -> None:
    # Isolated and without site, what is there is the standard library. The rest as the host lays it out.
    standard = [Path(entry) for entry in sys.path]
    sys.path[:0] = [str(package / PACKAGES), str(package), str(worker)]
    found = asyncio.run(drive(package))
    files = {
        name: Path(file)
        for name, module in sys.modules.items()
        if (file := getattr(module, "__file__", None)) and name != "__main__"
    }
    known = [package, worker, *standard]
    found["strangers"] = {name: str(file) for name, file in files.items() if not _within(file, known)}
    found["packaged"] = sorted(name for name, file in files.items() if _within(file, [package]))
    print(json.dumps(found))


def _within(file: Path, folders: list[Path]) -> bool:
    return any(
        file.is_relative_to(folder) and "site-packages" not in file.relative_to(folder).parts[:1] for folder in folders
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
