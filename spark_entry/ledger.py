"""An entry of the ledger, which lies in the target (R3, R10), and its text."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from sync_core.domain.codec import from_json, to_json
from sync_core.domain.run import CONTRACT_VERSION, RunKind
from sync_core.domain.watermark import Watermark


@dataclass(frozen=True)
class LedgerEntry:
    """One committed load. `rows` counts the rows it changed; `commit_version` is Delta's, None before the commit.

    `holds_rows` tells whether the target holds rows after it: found empty later, it was emptied by somebody (R10d).
    `keys` are the target columns that were unique after it, () when nothing was checked; `columns` those it wrote.
    """

    pipeline_id: str
    epoch: int
    generation: int
    watermark: Watermark | None
    run_key: str
    kind: RunKind
    fingerprint: str
    request_id: str | None = None
    rows: int = 0
    holds_rows: bool = False
    keys: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    object_id: str | None = None
    commit_version: int | None = None
    committed_at: str | None = None
    version: int = CONTRACT_VERSION

    def to_text(self) -> str:
        """One line of JSON, as it stands in a Delta commit's userMetadata."""
        return json.dumps({"uds_ledger": to_json(self)}, separators=(",", ":"), sort_keys=True)

    @staticmethod
    def from_text(text: str | None) -> LedgerEntry | None:
        """The entry in a commit's userMetadata; None when the text is somebody else's."""
        if not text or "uds_ledger" not in text:
            return None
        try:
            return from_json(LedgerEntry, json.loads(text)["uds_ledger"])
        except (ValueError, KeyError, TypeError):
            return None

    def at_version(self, version: int) -> LedgerEntry:
        return replace(self, commit_version=version)
