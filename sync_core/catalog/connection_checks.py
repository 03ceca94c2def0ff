"""What a connection of each type needs, and what it must not hold."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping

from sync_core.catalog.document import Node, Written, shown_key
from sync_core.catalog.faults import Fault, suggest
from sync_core.catalog.secrets import holds_credentials, is_secret_key
from sync_core.catalog.target_checks import resolve_folder
from sync_core.catalog.validation import STORE_IT
from sync_core.domain.connection import Authentication

STORE_THE_PASSWORD = STORE_IT.replace("it", "the password", 1)

ADAPTERS = "universal_data_sync.adapters"
"""Entry-point group of adapters, by connection type."""

_EVERY = {"type", "timezone", "max_concurrent"}
_JDBC = _EVERY | {
    "host",
    "port",
    "username",
    "auth",
    "secret_scope",
    "secret_key",
    "tls",
    "driver_package",
    "options",
    "schema",
}
_ENTRA = {"tenant_id", "client_id", "service_credential"}
KEYS: Mapping[str, set[str]] = {
    "oracle": _JDBC | {"service_name", "sid"},
    "azure_sql": _JDBC | _ENTRA | {"database", "trust_server_certificate"},
    "postgresql": _JDBC | {"database", "trust_server_certificate"},
    "databricks": _EVERY | {"catalog", "schema", "path"},
}
_SIGN_IN: Mapping[str, tuple[str, ...]] = {
    Authentication.PASSWORD: ("username", "secret_scope", "secret_key"),
    Authentication.SERVICE_PRINCIPAL: ("tenant_id", "client_id", "secret_scope", "secret_key"),
    Authentication.TOKEN: ("secret_scope", "secret_key"),
    Authentication.SERVICE_CREDENTIAL: ("service_credential",),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def is_name(name: str) -> bool:
    """Whether connections and channels may be called so."""
    return _NAME.fullmatch(name) is not None


def added_types() -> set[str]:
    """The connection types that installed packages serve."""
    return {point.name for point in importlib.metadata.entry_points(group=ADAPTERS)}


def check_connection(name: str, node: Node) -> list[Fault]:
    """The faults of one connection that its model cannot see."""
    faults: list[Fault] = []
    if not is_name(name):
        faults.append(
            node.fault("is not a connection's name", "write letters, digits, _ . - and begin with a letter or digit")
        )
    faults.extend(_secret_faults(node))
    kind = node.text_of("type")
    if kind is None:
        return faults
    added = added_types()
    if kind not in KEYS and kind not in added:
        type_node = node.get("type") or node
        faults.append(
            type_node.fault("there is no such type of connection", suggest(kind, sorted({*KEYS, *added}), "type"))
        )
        return faults
    faults.extend(pair_faults(node))
    if kind in KEYS:
        for key, value in node.mapping.items():
            if key not in KEYS[kind] and key in set[str]().union(*KEYS.values()):
                faults.append(value.fault(f"means nothing for a connection of type {kind}", "remove it"))
        faults.extend(_databricks_faults(node) if kind == "databricks" else _jdbc_faults(kind, node))
    return faults


def _secret_faults(node: Node) -> list[Fault]:
    faults: list[Fault] = []
    options = node.get("options")
    for key, value in options.mapping.items() if options else ():
        if is_secret_key(key):
            faults.append(value.fault("a secret is never written in the configuration", STORE_IT))
        elif key.lower() in ("user", "username"):
            faults.append(value.fault("is no driver option here", "write username: in the connection"))
    for key, value in [*node.mapping.items(), *(options.mapping.items() if options else ())]:
        if isinstance(value.value, Written) and holds_credentials(value.value, is_path=key == "path"):
            remedy = "write the address alone, the user as username:, and " + STORE_THE_PASSWORD
            faults.append(value.fault(f"{shown_key(key)} carries a user and password, or another secret", remedy))
    username = node.get("username")
    if username and node.text_of("type") == "oracle" and "/" in (username.text or ""):
        faults.append(username.fault("carries a password after /", "write the user alone, and " + STORE_THE_PASSWORD))
    return faults


def pair_faults(node: Node) -> list[Fault]:
    """A secret is named by its scope and its key, by both or by none."""
    faults: list[Fault] = []
    for key, other in (("secret_scope", "secret_key"), ("secret_key", "secret_scope")):
        written = node.get(key)
        if written and node.get(other) is None:
            faults.append(written.fault(f"stands without {other}", f"write {other}: too"))
    return faults


def _jdbc_faults(kind: str, node: Node) -> list[Fault]:
    faults: list[Fault] = []
    url = node.get("options", "url")
    if url is not None:
        if url.text is not None and not url.text.startswith("jdbc:"):
            faults.append(url.fault("is not a JDBC address", "begin it with jdbc:"))
    else:
        needed = ("host",) if kind == "oracle" else ("host", "database")
        faults.extend(node.fault("is missing", f"write {key}: …", key=key) for key in needed if node.get(key) is None)
        if kind == "oracle":
            faults.extend(_oracle_faults(node))
    host = node.get("host")
    written = host.text if host else None
    if host and written and not holds_credentials(written) and re.search(r"[/@;?\s]|^[^:]*:\d+$", written):
        faults.append(
            host.fault(
                "is more than a host name",
                "write the name alone; port: and database: have their own keys",
            )
        )
    return faults + _sign_in_faults(kind, node, url is not None)


def _oracle_faults(node: Node) -> list[Fault]:
    service, sid = node.get("service_name"), node.get("sid")
    if service and sid:
        return [sid.fault("stands beside service_name", "keep one of the two")]
    if not service and not sid:
        return [node.fault("is missing", "write service_name: …, or sid: …", key="service_name")]
    return []


def _sign_in_faults(kind: str, node: Node, has_url: bool) -> list[Fault]:
    auth = node.get("auth")
    way = (auth.text if auth else Authentication.PASSWORD.value) or ""
    if way not in _SIGN_IN:
        return []
    if auth and kind != "azure_sql" and way != Authentication.PASSWORD:
        return [auth.fault(f"{way} is for connections of type azure_sql", "write auth: password, or leave it out")]
    needed = set(_SIGN_IN[way])
    optional: set[str] = set()
    options = node.get("options")
    wallet = kind == "oracle" and options and any(key.startswith("oracle.net.") for key in options.mapping)
    if way == Authentication.PASSWORD and (has_url or wallet):
        optional = needed
    elif way == Authentication.PASSWORD and kind == "postgresql":
        optional = {"secret_scope", "secret_key"}
    if node.get("secret_scope") or node.get("secret_key"):
        needed -= {"secret_scope", "secret_key"}
    message = f"is missing: auth {way} needs {_listed(_SIGN_IN[way])}"
    missing = sorted(key for key in needed - optional if node.get(key) is None)
    faults = [node.fault(message, f"write {key}: …", key=key) for key in missing]
    meaningless = _ENTRA - set(_SIGN_IN[way])
    if way == Authentication.SERVICE_CREDENTIAL:
        meaningless |= {"username", "secret_scope", "secret_key"}
    for key in sorted(meaningless & KEYS[kind]):
        written = node.get(key)
        if written:
            faults.append(written.fault(f"means nothing with auth {way}", "remove it"))
    return faults


def _databricks_faults(node: Node) -> list[Fault]:
    path = node.get("path")
    if path is None:
        return [
            node.fault("is missing", f"write {key}: … (or path: … for a folder)", key=key)
            for key in ("catalog", "schema")
            if node.get(key) is None
        ]
    remedy = "keep path, or catalog and schema; in an environment `key: ~` takes an inherited key away"
    extra = [written for key in ("catalog", "schema") if (written := node.get(key))]
    faults = [written.fault("stands beside path", remedy) for written in extra]
    try:
        resolve_folder(path.text or "")
    except ValueError:
        faults.append(path.fault("is no folder that this machine can name", "write it from / on, or from ./ on"))
    return faults


def _listed(keys: tuple[str, ...]) -> str:
    return keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + " and " + keys[-1]
