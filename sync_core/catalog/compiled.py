"""The configuration as one validated JSON file: made where an application is built, read where it runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sync_core.catalog.faults import CatalogError, Fault
from sync_core.catalog.layers import Reader
from sync_core.catalog.load import Catalog, load_catalog
from sync_core.catalog.secrets import is_secret_key
from sync_core.domain.codec import from_json, to_json
from sync_core.domain.connection import Channel, Connection
from sync_core.domain.errors import ConfigError
from sync_core.domain.pipeline import Pipeline

COMPILED_VERSION = 1
"""Raised by whoever changes the shape below so that an older reader would read it wrongly."""

SHORTEST_SECRET = 6
"""Characters. A shorter value of a variable is found in too many words to say that it was copied."""

_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)")
_COMPILE_AGAIN = "Compile it again with uds compile, of the release that reads it."


@dataclass(frozen=True)
class CompiledEnvironment:
    """One environment's catalog; `environment` is None for the files without an overlay."""

    environment: str | None
    connections: Mapping[str, Connection]
    channels: Mapping[str, Channel]
    pipelines: tuple[Pipeline, ...]
    places: Mapping[str, str]


@dataclass(frozen=True)
class CompiledConfiguration:
    """What the file holds. `sources` is the sha256 of the YAML files, `content` that of `environments` as JSON."""

    version: int
    sources: str
    content: str
    environments: tuple[CompiledEnvironment, ...]


@dataclass
class _Recorder(Mapping[str, str]):
    """Variables that remember which of them were asked for."""

    variables: Mapping[str, str]
    asked: set[str] = field(default_factory=set[str])

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)


def compile_catalog(config: Path, environments: Sequence[str | None], variables: Mapping[str, str]) -> str:
    """Validate a configuration folder in each environment and return it as JSON text, the same for the same input.

    Variables are filled here, once and for all. Raises CatalogError with every fault of every environment, and
    ConfigError `config.secret` when what would be written holds the value of a variable that is named like a secret.
    """
    faults: list[Fault] = []
    recorder = _Recorder(variables)
    compiled: list[CompiledEnvironment] = []
    for environment in environments:
        try:
            catalog = load_catalog(config, environment, recorder)
        except CatalogError as error:
            faults.extend(error.faults)
            continue
        faults.extend(_folder_faults(config, environment, variables))
        compiled.append(
            CompiledEnvironment(
                environment,
                catalog.connections,
                catalog.channels,
                tuple(catalog.pipelines.values()),
                {name: _portable(place, config) for name, place in catalog.places.items()},
            )
        )
    faults.extend(_variable_faults(config, recorder.asked))
    if faults:
        raise CatalogError(faults)
    document = to_json(compiled)
    _refuse_secrets(document, variables)
    whole = CompiledConfiguration(COMPILED_VERSION, _digest_of_sources(config), _digest(document), ())
    return json.dumps(to_json(whole) | {"environments": document}, ensure_ascii=False, indent=1) + "\n"


def load_compiled(path: Path, environment: str | None) -> Catalog:
    """The catalog of one environment from a compiled file.

    Raises ConfigError: `config.compiled` when the file cannot be read, is not whole or was changed by hand,
    `config.version` when it was compiled for another release, `config.environment` when it lacks the environment.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{path} is not a whole compiled configuration: {type(error).__name__}."
        raise ConfigError("config.compiled", message, _COMPILE_AGAIN) from error
    if version != COMPILED_VERSION:
        message = f"{path} was compiled in version {version}; this release reads version {COMPILED_VERSION}."
        raise ConfigError("config.version", message, _COMPILE_AGAIN)
    if data.get("content") != _digest(data.get("environments")):
        raise ConfigError("config.compiled", f"{path} was changed after it had been compiled.", _COMPILE_AGAIN)
    try:
        found = from_json(CompiledConfiguration, data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError("config.compiled", f"{path} cannot be read: {error}.", _COMPILE_AGAIN) from error
    for one in found.environments:
        if one.environment == environment:
            pipelines = {pipeline.pipeline_id: pipeline for pipeline in one.pipelines}
            return Catalog(one.connections, pipelines, one.places, one.channels)
    known = ", ".join(one.environment or "no environment" for one in found.environments)
    message = f"{path} was compiled for {known}, and not for {environment or 'no environment'}."
    raise ConfigError("config.environment", message, "Set UDS_ENVIRONMENT to one of them, or compile for it too.")


def read_catalog(config: Path, environment: str | None, variables: Mapping[str, str]) -> Catalog:
    """The catalog from a compiled file or from a folder of YAML; `variables` mean something for a folder alone."""
    return load_compiled(config, environment) if config.is_file() else load_catalog(config, environment, variables)


def _portable(place: str, config: Path) -> str:
    """`config/pipelines.yml:14`, wherever on this machine the folder lies."""
    return (Path(config.name) / Path(place).relative_to(config)).as_posix()


def _folder_faults(config: Path, environment: str | None, variables: Mapping[str, str]) -> Iterator[Fault]:
    """Relative folders: they would be taken from where this is compiled, and read somewhere else."""
    for node in Reader(config, environment, variables, []).read().connections.values():
        path = node.get("path")
        if path and path.text and not re.match(r"/|[A-Za-z][A-Za-z0-9+.-]+:", path.text):
            remedy = "write it from / on, or catalog: and schema: (in an environment `path: ~` takes it away)"
            yield path.fault("is a folder of the machine that compiles; the application runs on another", remedy)


def _variable_faults(config: Path, asked: Iterable[str]) -> Iterator[Fault]:
    """Variables that are named like a secret: their value would stand in the file."""
    secret = {name for name in asked if _names_secret(name)}
    for path in _sources(config) if secret else ():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            for name in sorted(secret.intersection(_VARIABLE.findall(line))):
                remedy = "name the secret with secret_scope and secret_key; what is compiled can be read by many"
                yield Fault(str(path), number, "", f"fills in {name}, which is named like a secret", remedy)


def _refuse_secrets(document: Any, variables: Mapping[str, str]) -> None:
    """The second net: a secret that came in under a harmless name, or was written out."""
    texts = "\0".join(_texts(document))
    for name, value in sorted(variables.items()):
        if _names_secret(name) and len(value) >= SHORTEST_SECRET and value in texts:
            message = f"The compiled configuration would hold the value of {name}, which is named like a secret."
            raise ConfigError("config.secret", message, "Take it out, and name it with secret_scope and secret_key.")


def _names_secret(name: str) -> bool:
    # PWD and OLDPWD are the shell's folders.
    return name.upper().startswith("UDS_SECRET_") or (is_secret_key(name) and name not in ("PWD", "OLDPWD"))


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, Mapping):
        for key, value in cast("Mapping[str, Any]", document).items():
            yield key
            yield from _texts(value)
    elif isinstance(document, list):
        for item in cast("list[Any]", document):
            yield from _texts(item)
    elif isinstance(document, str):
        yield document


def _sources(config: Path) -> list[Path]:
    return sorted(path for path in config.rglob("*.yml") if path.is_file())


def _digest_of_sources(config: Path) -> str:
    whole = hashlib.sha256()
    for path in _sources(config):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(config).as_posix()}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
