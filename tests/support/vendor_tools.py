"""Stand-ins of `az`, `azd` and `databricks` for tests: they keep what they are told in a folder, and record each call.

Installed under those names by `install`. What the scripts never call is refused, so that a wrong call is found.
UDS_TESTS_STATE is the folder; UDS_TESTS_FAIL a text: a call that contains it fails, with nothing done.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def install(folder: Path, *names: str) -> None:
    """Put the stand-ins into a folder of the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.write_text(f"#!{sys.executable} -ISE\n{Path(__file__).read_text(encoding='utf-8')}", encoding="utf-8")
        path.chmod(0o755)


class Call:
    """One call: the words before the first option, and the options."""

    def __init__(self, program: str, arguments: list[str]) -> None:
        self.state = Path(os.environ["UDS_TESTS_STATE"])
        first = next((index for index, one in enumerate(arguments) if one.startswith("--")), len(arguments))
        self.words = " ".join([program, *arguments[:first]])
        self.options: dict[str, list[str]] = {}
        latest: list[str] = []
        for one in arguments[first:]:
            if one.startswith("--"):
                latest = self.options.setdefault(one, [])
            else:
                latest.append(one)

    def option(self, name: str) -> str:
        return self.options[name][0]

    def read(self, name: str, otherwise: str) -> str:
        path = self.state / name
        return path.read_text(encoding="utf-8") if path.exists() else otherwise

    def write(self, name: str, text: str) -> None:
        (self.state / name).write_text(text, encoding="utf-8")

    @property
    def blob(self) -> Path:
        container = self.state / "blobs" / self.option("--container-name")
        if not container.is_dir():
            sys.exit("ErrorCode:ContainerNotFound")
        assert self.option("--auth-mode") == "login"
        return container / self.option("--name")


def az(call: Call) -> str:
    if call.words == "az storage container create":
        (call.state / "blobs" / call.option("--name")).mkdir(parents=True, exist_ok=True)
    elif call.words == "az storage blob exists":
        (call.state / "blobs" / call.option("--container-name")).mkdir(parents=True, exist_ok=True)
        return str(call.blob.is_file()).lower()
    elif call.words == "az storage blob upload":
        call.blob.parent.mkdir(parents=True, exist_ok=True)
        call.blob.write_bytes(Path(call.option("--file")).read_bytes())
    elif call.words == "az storage blob download":
        Path(call.option("--file")).write_bytes(call.blob.read_bytes())
    elif call.words == "az functionapp config appsettings list":
        settings = json.loads(call.read("settings.json", "{}"))
        return json.dumps([{"name": name, "slotSetting": False, "value": value} for name, value in settings.items()])
    elif call.words == "az functionapp config appsettings set":
        settings = json.loads(call.read("settings.json", "{}"))
        settings |= dict(one.split("=", 1) for one in call.options["--settings"])
        call.write("settings.json", json.dumps(settings))
    elif call.words == "az account get-access-token":
        if call.option("--query") == "expiresOn":
            return "2030-01-01 00:00:00.000000"
        assert call.option("--resource") == "https://management.azure.com"
        return "the token of the tests"
    elif call.words == "az functionapp show":
        return call.read("host", "")
    else:
        sys.exit(f"az: no such command here: {call.words}")
    return ""


def databricks(call: Call) -> str:
    wheels = sorted(path.name for path in Path("../../dist").glob("*.whl"))
    if not Path("databricks.yml").is_file() or len(wheels) != 1:
        sys.exit(f"Error: unable to locate bundle root, or its wheel among {wheels}")
    if call.words == "databricks bundle deploy":
        call.write("engine", (Path("../../dist") / wheels[0]).read_text(encoding="utf-8"))
    elif call.words == "databricks bundle summary":
        return call.read(
            "summary", json.dumps({"resources": {"jobs": {"sync": {"id": "11"}, "smoke_test": {"id": 12}}}})
        )
    elif not call.words.startswith("databricks bundle run "):
        sys.exit(f"databricks: no such command here: {call.words}")
    return ""


def azd(call: Call) -> str:
    if call.words == "azd env get-values":
        return call.read("outputs", "")
    if call.words != "azd provision":
        sys.exit(f"azd: no such command here: {call.words}")
    assert os.environ["AZURE_ENV_NAME"] == call.option("--environment")
    # The templates write every app setting, the jobs as they are told them.
    call.write("settings.json", json.dumps({"UDS_DATABRICKS_JOBS": os.environ.get("UDS_DATABRICKS_JOBS", "")}))
    call.write("provisioned", json.dumps(dict(os.environ)))
    return ""


def main() -> None:
    program = Path(sys.argv[0]).name
    call = Call(program, sys.argv[1:])
    whole = " ".join([program, *sys.argv[1:]])
    with (call.state / "calls").open("a", encoding="utf-8") as file:
        file.write(whole + "\n")
    fail = os.environ.get("UDS_TESTS_FAIL")
    if fail and fail in whole:
        sys.exit(f"ERROR: ({fail}) is what this stand-in was told to fail on")
    print({"az": az, "azd": azd, "databricks": databricks}[program](call))


if __name__ == "__main__":
    main()
