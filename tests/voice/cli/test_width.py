"""On a terminal of 80 columns nothing that a command prints runs over the edge; usage errors lead to the right help."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from agentos.core.communication.voice.cli import main
from agentos.core.communication.voice.cli.app import application

COLUMNS = 80
COMMAND = [sys.executable, "-m", "agentos.core.communication.voice.cli"]
APP = application()
GROUPS = {"evidence": ["verify", "head", "list"], "token": ["create", "list", "revoke"]}
NAMES = [
    *((name,) for name in APP if not name.startswith("-")),
    *((group, name) for group, names in GROUPS.items() for name in names),
]


def screen(*arguments: str) -> list[str]:
    """The lines that a command leaves on a terminal of 80 columns; what was overwritten is not among them."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while got := os.read(ours, 65_536):
                shown += got
        except OSError:  # the other end is closed
            pass
        process.wait(60)
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in plain.split("\n")]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A home with a call, a refusal and tokens with long names in it, and the call's id."""
    home = str(tmp_path_factory.mktemp("width") / "h")
    long = "a-name-that-somebody-gave-without-thinking-of-tables"

    def ran(*arguments: str) -> str:
        return subprocess.run(
            [*COMMAND, *arguments, "--home", home], capture_output=True, text=True, check=False
        ).stdout

    said = ran("call", "--fast", "--json", "--project", long)
    ran("call", "--fast", "--metadata", '{"requires_data_access": true}')
    ran("token", "create", long, "--role", "project", "--project", long)
    session = re.search(r'"session_id": "(\S+)"', said)
    assert session is not None, said
    return home, session[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions",),
        ("events", "SESSION"),
        ("evidence", "list"),
        ("evidence", "list", "SESSION"),
        ("evidence", "verify"),
        ("evidence", "head"),
        ("token", "list"),
        ("settings",),
        ("doctor",),
        ("recover",),
        ("call", "--nope"),
        ("nothing-of-that-name",),
        ("evidence", "list", "voice-000000000000000000000000"),
    ],
    ids=" ".join,
)
def test_what_a_command_prints_stays_within_80_columns(arguments: tuple[str, ...], used: tuple[str, str]) -> None:
    home, session = used
    given = [session if argument == "SESSION" else argument for argument in arguments]
    lines = screen(*given, *(() if "nothing-of-that-name" in arguments else ("--home", home)))
    assert any(lines)
    unbroken = [line for line in lines if len(line) > COLUMNS and " " not in line.strip()]  # a path is never cut
    assert [line for line in lines if len(line) > COLUMNS and line not in unbroken] == []


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_every_help_stays_within_80_columns(names: tuple[str, ...]) -> None:
    lines = screen(*names, "--help")
    assert any("Usage" in line for line in lines)
    assert [line for line in lines if len(line) > COLUMNS] == []


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_a_usage_error_leads_to_the_help_of_its_own_command(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*names, "--no-such-option"]) == 2
    assert capsys.readouterr().err.rstrip().endswith(f"See `agentos-voice {' '.join(names)} --help`.")


def test_a_command_that_there_is_not_leads_to_the_help_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frob"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("See `agentos-voice --help`.")


def test_off_a_terminal_a_table_has_a_line_for_each_row(used: tuple[str, str], tmp_path: Path) -> None:
    home, session = used
    with (tmp_path / "out").open("w") as out:
        subprocess.run([*COMMAND, "evidence", "list", session, "--home", home], stdout=out, check=True)
    head, *rows = (tmp_path / "out").read_text().splitlines()
    assert head.split() == ["at", "session", "operation", "status", "id"]
    assert len(rows) == 4
