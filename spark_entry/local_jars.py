"""Jars for sessions that are built on this machine: resolved from Maven Central once, kept in a cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyspark

from sync_core.domain.errors import PermanentError

IVY_SETTINGS = """<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true"/></resolvers>
</ivysettings>
"""

RESOLVE_SECONDS = 600


def find_jars(packages: Iterable[str], cache: Path) -> list[Path]:
    """The jars of Maven coordinates with all they need, without those that pyspark brings itself.

    Raises PermanentError `engine.jars` when they are not in the cache and cannot be fetched.
    """
    wanted = sorted(set(packages))
    name = hashlib.sha256("\n".join([pyspark.__version__, *wanted]).encode()).hexdigest()[:16]
    folder = cache / "jars" / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # One lock for all: Ivy's own cache does not bear two that fetch into it.
        with (folder.parent / "fetch.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _fetch(wanted, folder)
    return sorted(folder.glob("*.jar"))


def _fetch(packages: Sequence[str], folder: Path) -> None:
    """Fetch into a folder of another name first, so that a folder of the final name always holds everything."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    settings, module = unfinished / "ivysettings.xml", unfinished / "ivy.xml"
    settings.write_text(IVY_SETTINGS, encoding="utf-8")
    module.write_text(_module(packages), encoding="utf-8")
    home = Path(pyspark.__file__).parent / "jars"
    command = [_java(), "-cp", str(home / "*"), "org.apache.ivy.Main", "-settings", str(settings), "-ivy", str(module)]
    pattern = f"{unfinished}/[organisation]_[artifact]-[revision](-[classifier]).[ext]"
    command += ["-confs", "default", "-retrieve", pattern, "-types", "jar", "bundle"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreachable(packages, str(error)) from error
    if done.returncode or not list(unfinished.glob("*.jar")):
        problems = re.findall(r"(?:unresolved dependency|not found|ERROR|problem)[^\n]*", done.stdout + done.stderr)
        raise _unreachable(packages, "; ".join(problems[:3]) or done.stderr[-300:])
    brought = {_artifact(path.name) for path in home.glob("*.jar")}
    for path in unfinished.glob("*.jar"):
        if _artifact(path.name.partition("_")[2]) in brought:
            path.unlink()
    unfinished.rename(folder)


def _module(packages: Sequence[str]) -> str:
    lines: list[str] = []
    for package in packages:
        organisation, artifact, revision = package.split(":")
        # Only what runs with it: the optional rest of a driver is not needed.
        lines.append(
            f'<dependency org="{organisation}" name="{artifact}" rev="{revision}" conf="default-&gt;default"/>'
        )
    exclude = '<exclude org="org.apache.spark"/><exclude org="org.scala-lang"/><exclude org="org.apache.hadoop"/>'
    return (
        '<ivy-module version="2.0"><info organisation="uds" module="engine"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{''.join(lines)}{exclude}</dependencies></ivy-module>"
    )


def _artifact(name: str) -> str:
    """`commons-pool-1.6.jar` is `commons-pool`."""
    return re.sub(r"-\d[^/]*\.jar$", "", name)


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"


def _unreachable(packages: Sequence[str], why: str) -> PermanentError:
    return PermanentError(
        "engine.jars",
        f"The drivers {', '.join(packages)} could not be fetched from Maven Central: {why[:300]}.",
        "The first run needs Java 17 or later on the PATH and Maven Central; later ones need no network.",
    )
