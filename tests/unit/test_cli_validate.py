"""The command line: validate, init, schema, common options, and how errors are printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sync_core import cli
from sync_core.cli.options import move_options
from sync_core.domain.errors import PermanentError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return cli.run_command_line(list(arguments))


def failing(error: BaseException) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_init_writes_a_configuration_that_validates(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run("init") == 0
    assert "Next: " in capsys.readouterr().out
    assert run("validate") == 0
    assert capsys.readouterr().out == "4 connections, 5 pipelines: no faults.\n"
    assert run("validate", "--env", "production") == 0
    assert (folder / "config/schema.json").exists()


def test_init_never_overwrites(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "config").mkdir()
    (folder / "config/pipelines.yml").write_text("mine")
    assert run("init") == 2
    assert "There is a configuration already: config/pipelines.yml." in capsys.readouterr().err
    assert [path.name for path in (folder / "config").iterdir()] == ["pipelines.yml"]
    assert (folder / "config/pipelines.yml").read_text() == "mine"
    assert run("init", "other", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["written"]) == 4


def test_init_into_a_place_that_is_a_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "config").write_text("")
    assert run("init") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.fixture
def broken(folder: Path) -> Path:
    run("init")
    path = folder / "config/pipelines.yml"
    path.write_text(path.read_text().replace("type: timestamp,", "type: timestmp,").replace("tags: [shop]", "tag: [x]"))
    return path


def test_validate_lists_every_fault(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("validate") == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "config/pipelines.yml:16  pipelines[0].cursor.type  'timestmp' is not known here"
        "  → write timestamp (or date, timestamp_tz, number, rowversion, version)",
        "config/pipelines.yml:18  pipelines[0].tag  is not known here  → write tags",
        "2 faults.",
    ]
    assert broken.exists()


def test_validate_gives_one_document(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("validate", "--json") == 2
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert [(fault["line"], fault["path"]) for fault in document["faults"]] == [
        (16, "pipelines[0].cursor.type"),
        (18, "pipelines[0].tag"),
    ]
    assert set(document["faults"][0]) == {"file", "line", "path", "message", "remedy"}
    assert output.err == ""
    broken.unlink()
    run("init", "good")
    capsys.readouterr()
    assert run("--config", "good", "--json", "validate") == 0
    assert json.loads(capsys.readouterr().out) == {"faults": [], "connections": 4, "pipelines": 5}


def test_brackets_in_messages_are_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("init")
    path = folder / "config/pipelines.yml"
    path.write_text(path.read_text().replace("mode: merge", "mode: '[bold]x[/bold]'", 1))
    capsys.readouterr()
    assert run("validate") == 2
    assert "'[bold]x[/bold]' is not known here" in capsys.readouterr().out


def test_no_folder_is_one_clear_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("validate", "--config", "none") == 2
    assert capsys.readouterr().out.startswith("none  is not a folder  → ")


def test_schema_goes_to_the_screen_or_a_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run("schema") == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["title"] == "Universal Data Sync configuration"
    assert run("schema", "--write", "s.json") == 0
    assert (folder / "s.json").read_text() == printed
    assert run("schema", "--write", "no/s.json") == 1
    assert "cannot be written: No such file or directory." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        (["--config", "c", "--json", "run", "x"], ["run", "x", "--config", "c", "--json"]),
        (["--env=e", "watermark", "show", "x"], ["watermark", "show", "x", "--env=e"]),
        (["--state", "s", "run", "--", "-x"], ["run", "--state", "s", "--", "-x"]),
        (["run", "--json"], ["run", "--json"]),
        (["--version", "--json"], ["--version", "--json"]),
        (["--config"], ["--config"]),
        (["--config", "c", "--json"], []),
        ([], []),
    ],
)
def test_common_options_may_stand_before_the_command(given: list[str], moved: list[str]) -> None:
    assert move_options(given) == moved


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("uds ")
    assert run() == 0
    assert "validate" in capsys.readouterr().out
    assert run("validate", "--help") == 0
    assert "--env" in capsys.readouterr().out
    assert run("watermark") == 0
    output = capsys.readouterr()
    assert ("reset" in output.out, output.err) == (True, "")


@pytest.mark.parametrize(
    ("arguments", "helped"),
    [
        (("validat",), ""),
        (("validate", "--jso"), "validate "),
        (("validate", "extra"), "validate "),
        (("watermark", "reset", "x"), "watermark reset "),
        (("validate", "--env"), "COMMAND "),
    ],
)
def test_a_wrong_call_exits_2(arguments: tuple[str, ...], helped: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    assert f"→ uds {helped}--help lists" in output.err


def test_a_wrong_call_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("validate", "--nonsense", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "call.wrong"


def test_an_error_is_one_sentence_and_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = PermanentError("ledger.behind", "orders: the target [lake] was dropped.", "Run uds watermark reset orders.")
    monkeypatch.setattr(cli.validate, "load_catalog", failing(error))
    assert run("validate") == 1
    output = capsys.readouterr()
    assert output.err == "orders: the target [lake] was dropped.\n→ Run uds watermark reset orders.\n"
    assert run("validate", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "error": {"code": "ledger.behind", "kind": "permanent", "message": error.message, "remedy": error.remedy}
    }


def test_p26_an_unforeseen_error_shows_its_name_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UDS_DEBUG", raising=False)
    monkeypatch.setattr(cli.validate, "load_catalog", failing(RuntimeError("password=hunter2")))
    assert run("validate") == 1
    output = capsys.readouterr()
    assert "unforeseen RuntimeError" in output.err
    assert "hunter2" not in output.err + output.out
    monkeypatch.setenv("UDS_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run("validate")


def test_ctrl_c_exits_130_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.validate, "load_catalog", failing(KeyboardInterrupt()))
    assert run("validate") == 130
    assert capsys.readouterr().err.startswith("Interrupted.\n")
    assert run("validate", "--json") == 130
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "interrupted"


@pytest.mark.parametrize("arguments", [["schema"], ["schema", "--json"], ["status", "--json"]])
def test_a_full_disk_is_a_sentence(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "sync_core.cli", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "uds stopped: No space left on device.\n→ Check the disk, and where the output goes.\n",
    )


@pytest.mark.parametrize("arguments", [(), ("watermark",)])
def test_the_list_of_commands_cuts_no_line_off(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*arguments) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert listed.count("\n") > 3
    assert "..." not in listed


def test_the_folders_may_come_from_the_environment(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("init", "mine") == 0
    assert run("validate") == 2
    monkeypatch.setenv("UDS_CONFIG", "mine")
    monkeypatch.setenv("UDS_STATE", "kept")
    assert run("validate") == 0
    assert run("status") == 0
    assert (folder / "kept").is_dir()
    capsys.readouterr()
    assert run("validate", "--config", "other") == 2
    assert "other  is not a folder" in capsys.readouterr().out


def test_a_missing_file_beside_others_leads_to_a_starter_that_can_be_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init") == 0
    (folder / "config/connections.yml").unlink()
    capsys.readouterr()
    assert run("validate") == 2
    said = capsys.readouterr().out.splitlines()[0]
    command = said.rpartition("uds ")[2].split()
    assert command[0] == "init"
    assert run(*command) == 0


def test_explain_without_a_code_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain") == 0
    lines = {line.split()[0]: line.partition("  ")[2].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines["stale"] == "No run has succeeded for longer than stale_after."
    assert lines["database.denied"].startswith("The user may not do what is needed; the message")
    assert all(lines.values())
    assert run("explain", "zzzz") == 2
    assert "uds explain lists them all" in capsys.readouterr().err
