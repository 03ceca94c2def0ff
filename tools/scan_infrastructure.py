"""Fail on what checkov finds in Bicep files, on files that it could not read, and on rules skipped without a reason.

checkov exits 0 when it could not parse a file, and when one of its rules broke; so its report and its log are read as well.
Run by tools/check-infra, in checkov's own environment.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

SHORTEST_REASON = 20
"""Characters. What is shorter explains nothing."""

_SKIP = re.compile(r"checkov:skip=([A-Z0-9_]+):?(.*)")


def faults_of(report: dict[str, Any], log: str, sources: dict[str, str]) -> list[str]:
    """What is wrong, one line each. `report` and `log` are checkov's output and its log, `sources` the files by path."""
    results = report.get("results", {})
    faults = [f"{file}: checkov cannot parse it" for file in results.get("parsing_errors", [])]
    faults += [line.strip() for line in log.splitlines() if "[ERROR" in line or line.startswith("Traceback")]
    faults += [
        f"{check['file_path'].lstrip('/')}:{check['file_line_range'][0]}: {check['check_id']} {check['check_name']}"
        for check in results.get("failed_checks", [])
    ]
    if not report.get("summary", {}).get("passed"):
        faults.append("checkov checked nothing")
    for path, source in sources.items():
        for number, line in enumerate(source.splitlines(), 1):
            skipped = _SKIP.search(line)
            if skipped and len(skipped.group(2).strip()) < SHORTEST_REASON:
                faults.append(f"{path}:{number}: {skipped.group(1)} is skipped without a reason")
    return faults


def main(folder: Path) -> int:
    """Scan a folder. Returns 1 when something is wrong."""
    sources = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*.bicep")}
    if not sources:
        print(f"There are no Bicep files in {folder}.")
        return 1
    command = [
        str(Path(sys.executable).with_name("checkov")),
        *("--directory", str(folder), "--framework", "bicep", "--output", "json", "--skip-download"),
    ]
    scan = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(scan.stdout)
    except ValueError:
        print(f"checkov gave no report (exit {scan.returncode}): {(scan.stdout + scan.stderr)[-2000:]}")
        return 1
    # A folder without a single resource is reported without the results.
    faults = faults_of(report, scan.stderr, sources)
    for fault in faults:
        print(fault)
    if faults:
        return 1
    summary = report["summary"]
    print(f"{len(sources)} Bicep files: {summary['passed']} checks passed, {summary['skipped']} skipped with a reason.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
