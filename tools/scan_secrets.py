"""Fail when a tracked file holds what looks like a secret."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from detect_secrets.core.scan import scan_file  # pyright: ignore[reportUnknownVariableType]
from detect_secrets.settings import default_settings

PASSED_OVER = ("requirements.lock", "requirements-functions.lock", "tools/checkov.lock")
"""Files whose hashes look like secrets and are none."""

REFERENCE = re.compile(r"secret_(scope|key):")
"""Names where a secret lies, which is all that a configuration may hold."""


def main() -> int:
    """Scan every file that git tracks or would track. Returns 1 when something was found."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    found = 0
    with default_settings():
        for path in listing.stdout.splitlines():
            if path in PASSED_OVER or not Path(path).is_file():
                continue
            lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
            for secret in scan_file(path):
                if REFERENCE.search(lines[secret.line_number - 1]):
                    continue
                print(f"{path}:{secret.line_number}: {secret.type}")
                found += 1
    print("No secrets found." if not found else f"{found} possible secrets; remove them, or mark a false alarm.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
