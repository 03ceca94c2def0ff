"""tools/check-infra: the real checkov must turn a faulty folder away, whatever its own exit status says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.scan_infrastructure import faults_of

ROOT = Path(__file__).parents[2]

ACCOUNT = """
resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: 'stexample'
  kind: 'StorageV2'
  properties: {
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    allowBlobPublicAccess: false
  }
}
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {
                "unreadable.bicep": "import { x } from 'y.bicep'\n",
                "weak.bicep": ACCOUNT.replace("Only: true", "Only: false"),
                "silent.bicep": ACCOUNT.replace("= {", "= {\n  // checkov:skip=CKV_AZURE_206", 1),
            },
            (
                "unreadable.bicep: checkov cannot parse it",
                "weak.bicep:2: CKV_AZURE_3 ",
                "silent.bicep:3: CKV_AZURE_206 is skipped without a reason",
            ),
            id="faulty",
        ),
        pytest.param({}, ("There are no Bicep files",), id="empty"),
    ],
)
def test_a_faulty_folder_is_turned_away(files: dict[str, str], expected: tuple[str, ...], tmp_path: Path) -> None:
    for name, source in files.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    run = subprocess.run(
        [str(ROOT / "tools/check-infra"), str(tmp_path)], capture_output=True, text=True, timeout=500, check=False
    )
    assert run.returncode == 1, run.stdout + run.stderr
    for line in expected:
        assert line in run.stdout


PASSED = {"summary": {"passed": 3}, "results": {"parsing_errors": [], "failed_checks": []}}


@pytest.mark.parametrize(
    ("report", "log", "source", "fault"),
    [
        ({"summary": {"passed": 0}, "results": {}}, "", "", "checkov checked nothing"),
        ({"passed": 0, "failed": 0, "parsing_errors": 0}, "", "", "checkov checked nothing"),
        (
            PASSED,
            "2026 [MainThread  ] [ERROR]  Failed to run check CKV_AZURE_189",
            "",
            "2026 [MainThread  ] [ERROR]  Failed",
        ),
        (PASSED, "", "// checkov:skip=CKV_AZURE_35:no", "main.bicep:1: CKV_AZURE_35 is skipped without a reason"),
    ],
)
def test_what_checkov_passes_over_is_a_fault(report: dict[str, object], log: str, source: str, fault: str) -> None:
    assert (
        faults_of(PASSED, "", {"main.bicep": "// checkov:skip=CKV_AZURE_35:It follows a parameter, off in prod."}) == []
    )
    assert [one.startswith(fault) for one in faults_of(report, log, {"main.bicep": source})] == [True]
