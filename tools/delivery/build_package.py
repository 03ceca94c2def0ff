"""tools/build-package: everything that is deployed, built once: Functions package, wheel, bundle, list of components."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.delivery.archive import zip_folder
from tools.delivery.build_wheel import build_wheel
from tools.delivery.commands import ROOT, Stopped, main, run, say
from tools.delivery.release import BUNDLE, PACKAGE, SBOM, Release, digest, write_release
from tools.delivery.source import Source, read_source

LOCK = ROOT / "requirements-functions.lock"
SITE_PACKAGES = ".python_packages/lib/site-packages"
"""Where the Functions host looks for an app's packages."""

TARGET = ("--python-version", "3.13", "--implementation", "cp", "--only-binary", ":all:")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""Linux as Flex Consumption runs it: glibc 2.28 or later on x86-64."""

LEFT_OUT = ("cli", "demo", "__pycache__")
"""Parts of sync_core that a Functions app never calls."""


def build_package(output: Path, config: Path, bundle: Path, source: Source) -> Release:
    """Build a whole release into `output`. Raises Stopped, with status 2 when the configuration has faults."""
    environments = tuple(sorted(path.stem for path in (config / "environments").glob("*.yml")))
    if not environments:
        raise Stopped(f"{config}/environments holds no NAME.yml: a release needs one for each environment.", 2)
    if not (bundle / "databricks.yml").is_file():
        raise Stopped(f"{bundle} holds no databricks.yml.", 2)
    output.mkdir(parents=True, exist_ok=True)
    for name in (PACKAGE, BUNDLE, SBOM):
        (output / name).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "app"
        _copy_code(root)
        compile_configuration(config, environments, root / "config/compiled.json")
        _install(root / SITE_PACKAGES)
        build = {"release": source.name, "version": source.version, "built_at": source.built_at}
        (root / "build.json").write_text(json.dumps(build, indent=1) + "\n", encoding="utf-8")
        zip_folder(root, output / PACKAGE, source.at)
    _copy_bundle(bundle, output / BUNDLE, source.at)
    build_wheel(output, source)
    _list_components(output / SBOM)
    for stray in output.iterdir():
        if stray.is_file() and stray.suffix in (".zip", ".whl", ".json") and not _belongs(stray.name):
            raise Stopped(f"{stray} is not part of the release. Empty {output} and build again.")
    return write_release(output, source.name, source.version, source.built_at, environments)


def compile_configuration(config: Path, environments: Sequence[str], output: Path) -> None:
    """`uds compile`. Raises Stopped with status 2 after every fault was printed."""
    command = [sys.executable, "-m", "sync_core.cli", "compile", "--config", str(config), "--output", str(output)]
    for name in environments:
        command += ["--environment", name]
    try:
        run(*command, environment={"PYTHONPATH": str(ROOT)})
    except Stopped as stopped:
        raise Stopped(
            "The configuration has faults, or could not be compiled; see above. Nothing was built.", 2
        ) from stopped


def _copy_code(root: Path) -> None:
    shutil.copytree(ROOT / "sync_core", root / "sync_core", ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in ("function_app.py", "host.json"):
        shutil.copy(ROOT / name, root / name)


def _install(folder: Path) -> None:
    """Every locked package as a wheel for the platform that the app runs on, whatever the machine that builds."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
    ]
    command += ["--require-hashes", "--requirement", str(LOCK), "--target", str(folder), *TARGET]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    run(*command)
    # Scripts name the Python that installed them; the app has another one and starts no scripts.
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for record in folder.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        record.write_text(
            "".join(line for line in lines if not line.startswith(("../../bin/", "bin/"))), encoding="utf-8"
        )


def _copy_bundle(bundle: Path, archive: Path, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bundle"
        shutil.copytree(bundle, place, ignore=shutil.ignore_patterns(".databricks", "__pycache__"))
        zip_folder(place, archive, at)


def _list_components(output: Path) -> None:
    """The components of the Functions package as CycloneDX, validated by the tool; the wheel itself has none."""
    command = (
        sys.executable,
        "-m",
        "cyclonedx_py",
        "requirements",
        str(LOCK),
        "--pyproject",
        str(ROOT / "pyproject.toml"),
    )
    # It warns that no dependencies of the root are listed: a lock file knows none, and a release has none but these.
    quiet = {"PYTHONWARNINGS": "ignore::UserWarning"}
    run(*command, "--output-reproducible", "--of", "JSON", "--output-file", str(output), environment=quiet)


def _belongs(name: str) -> bool:
    return name in (PACKAGE, BUNDLE, SBOM, "release.json") or name.startswith("universal_data_sync-")


def work() -> None:
    """The script."""
    parser = argparse.ArgumentParser(prog="tools/build-package", description="Build a release.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder to write to (dist)")
    parser.add_argument("--config", type=Path, default=ROOT / "config", help="the configuration to compile (config)")
    parser.add_argument("--bundle", type=Path, default=ROOT / "infra/databricks", help="the Databricks bundle")
    asked = parser.parse_args()
    release = build_package(asked.output, asked.config, asked.bundle, read_source())
    say(f"Release {release.name}, version {release.version}, for {', '.join(release.environments)}, in {asked.output}:")
    for name in release.files:
        say(f"  {digest(asked.output / name)}  {name}")


if __name__ == "__main__":
    main("tools/build-package", work)
