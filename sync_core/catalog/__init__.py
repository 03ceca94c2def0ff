"""From YAML to domain values; all faults are told together, each with its file, line and a hint."""

from sync_core.catalog.faults import CatalogError, Fault
from sync_core.catalog.load import Catalog, load_catalog

__all__ = ["Catalog", "CatalogError", "Fault", "load_catalog"]
