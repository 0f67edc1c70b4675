"""The page on the browser stream: its messages are some, its codes are all, and its commands lead to a call by hand."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tokens import TokenStore
from machines.stream.messages import COME_BACK, HEADER, StreamCode, read_from_client, read_from_server
from tests.voice.gateway.serving import PATIENCE, ROOT, serving

PAGE = (ROOT / "docs" / "browser-stream.md").read_text()
PROGRAM = """
python3() { "$PYTHON" "$@"; }
websockets() { "$PYTHON" -m websockets "$@"; }
auth="Authorization: Bearer $TOKEN"
set -euo pipefail
"""


def test_every_message_of_the_page_is_one_and_every_kind_is_shown() -> None:
    shown = {}
    for side, read in (("client", read_from_client), ("server", read_from_server)):
        for block in re.findall(rf"```json {side}\n(.*?)```", PAGE, re.DOTALL):
            for line in block.splitlines():
                read(line)
                shown[json.loads(line)["type"]] = side
    assert {kind for kind, side in shown.items() if side == "client"} == {"hello", "gap", "end", "pong"}
    assert {kind for kind, side in shown.items() if side == "server"} == {"welcome", "ack", "event", "ping", "bye"}


def test_every_close_code_is_on_the_page_with_what_a_client_does() -> None:
    rows = dict(re.findall(r"^\| (\d{4}) \| .* \| (done|again|stop) \|$", PAGE, re.MULTILINE))
    codes = {code for name, code in vars(StreamCode).items() if name.isupper()}
    assert {int(code) for code in rows} == codes
    for code, then in rows.items():
        assert (then == "again") is (int(code) in COME_BACK), code


def test_the_layout_is_that_of_the_code() -> None:
    header = HEADER.pack(1, 1, 0x0203, 0x04050607, 0x08090A0B)
    assert header == bytes([1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    for words in ("| 0 |", "| 1 |", "| 2, 3 |", "| 4 to 7 |", "| 8 to 11 |"):
        assert words in PAGE


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_by_hand_with_curl_and_the_client_of_websockets(backend: str, home: Path) -> None:
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
        token = TokenStore(store).create("demo")
    with serving("--backend", backend) as server:
        with subprocess.Popen(
            ["bash", "-c", PROGRAM + commands],
            env={**os.environ, "PYTHON": sys.executable, "VOICE": server.url, "TOKEN": token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as shell:
            assert shell.stdin is not None
            assert shell.stdout is not None
            said = shell.stdout.readline()
            hello = json.loads(said)
            deadline = time.monotonic() + PATIENCE  # noqa: TID251 - a real process
            while "Connected to" not in said:
                said += shell.stdout.readline()
                assert time.monotonic() < deadline, said  # noqa: TID251
            shell.stdin.write(json.dumps(hello) + "\n")
            shell.stdin.flush()
            while '"welcome"' not in said:
                said += shell.stdout.readline()
            shell.stdin.write('{"type":"end","upto":0}\n')
            shell.stdin.flush()
            while "Connection closed: 1000" not in said:
                said += shell.stdout.readline()
                assert time.monotonic() < deadline, said  # noqa: TID251
            shell.stdin.close()
            shell.wait(PATIENCE)
        assert '"session_started"' in said
        assert '"type":"bye","state":"stopped"' in said
        assert server.end() == 0
