"""The files of the page on deploying: a call goes through nginx as it is configured there, systemd takes the unit, and the
commands of the container file do what they are there for."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile  # type: ignore[import-untyped]

from agentos.core.communication.voice.samples import SAMPLE
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from tests.acceptance.test_python_client_page import PROGRAMS
from tests.voice.gateway.serving import PATIENCE, ROOT, serving

PAGE = (ROOT / "docs" / "deploy.md").read_text()
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
ANALYZE = shutil.which("systemd-analyze")
CLOSING_SECONDS = 20  # what the page on shutdown adds to the settings


def block(language: str) -> str:
    """The only block of this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def seconds_to_end() -> float:
    settings = load_settings()
    return (
        settings.drain_timeout_seconds
        + settings.stop_timeout_seconds
        + 4 * settings.evidence_timeout_seconds
        + CLOSING_SECONDS
    )


# --- nginx -----------------------------------------------------------------------------------------------------------


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def nginx(folder: Path, server_url: str) -> Iterator[str]:
    """nginx with the page's configuration, before a server: its address. Its certificate is `folder/voice.pem`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=voice.example"]
    names = ["-addext", "subjectAltName=DNS:voice.example,IP:127.0.0.1"]
    files = ["-keyout", str(folder / "voice.key"), "-out", str(folder / "voice.pem")]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    site = block("nginx")
    for written, here in (
        ("443 ssl", f"127.0.0.1:{port} ssl"),
        ("/etc/ssl/voice.example.pem", str(folder / "voice.pem")),
        ("/etc/ssl/voice.example.key", str(folder / "voice.key")),
        ("http://127.0.0.1:8080", server_url),
    ):
        assert site.count(written) == 1, written
        site = site.replace(written, here)
    (folder / "voice.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}include {folder}/voice.conf;\n}}\n"
    )
    run = [str(NGINX), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    tested = subprocess.run([*run, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    with subprocess.Popen(run, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE  # noqa: TID251 - a real process
            while not listens(port):
                assert time.monotonic() < deadline  # noqa: TID251
                assert process.poll() is None
                time.sleep(0.05)
            yield f"https://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_call_goes_through_nginx_by_tls(home: Path, tmp_path: Path) -> None:
    script, speech = tmp_path / "speak.py", tmp_path / "speech.wav"
    script.write_text(PROGRAMS["speak.py"])
    sound, rate = soundfile.read(SAMPLE, dtype="int16")
    soundfile.write(speech, sound, rate, subtype="PCM_16")
    with open_store(home / "voice.db", busy_timeout_seconds=5) as store:
        token = TokenStore(store).create("speaker", role=Role.PROJECT, project="demo")
    options = ("--trusted-proxy", "127.0.0.1", "--name", "voice.example", "--name", "127.0.0.1")
    with serving(*options) as server, nginx(tmp_path, server.url) as url:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script), url, token, str(speech)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(tmp_path / "voice.pem")},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert server.end() == 0
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("over: stopped\n")
    with open_to_read(home / "voice.db") as store:
        (session,) = store.sessions()
    assert session.result is not None
    assert session.result.frames.accepted == session.result.frames.accounted == math.ceil(len(sound) / (rate // 50))


# --- systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "agentos-voice.service"
    command = "/opt/agentos-voice/bin/agentos-voice"
    assert block("ini").count(command) == 1
    unit.write_text(block("ini").replace(command, sys.executable))
    done = subprocess.run([str(ANALYZE), "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])


def test_nobody_is_killed_before_the_server_must_have_ended() -> None:
    (of_systemd,) = re.findall(r"^TimeoutStopSec=(\d+)$", PAGE, re.MULTILINE)
    (of_podman,) = re.findall(r"--stop-timeout (\d+)", PAGE)
    assert int(of_systemd) > seconds_to_end()
    assert int(of_podman) > seconds_to_end()
    assert f"{seconds_to_end():g} seconds with\nthe defaults" in (ROOT / "docs" / "shutdown.md").read_text()


# --- the container file ------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The instructions of the container file with their arguments, in order."""
    text = block("dockerfile").replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def only(name: str) -> str:
    (argument,) = [argument for found, argument in instructions() if found == name]
    return argument


def test_the_container_runs_as_a_user_that_owns_its_home() -> None:
    (home,) = re.findall(r"AGENTOS_VOICE_HOME=(\S+)", only("ENV"))
    makes_home = next(
        argument for name, argument in instructions() if name == "RUN" and "install --directory" in argument
    )
    assert only("USER") != "0"
    assert f"--owner={only('USER')} --mode=0700 {home}" in makes_home
    assert only("VOLUME") == home
    assert only("STOPSIGNAL") == "SIGTERM"
    (extras,) = re.findall(r"-c constraints\.txt '\.\[([\w,]+)\]'", PAGE)
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(offered)


def test_the_health_check_of_the_container_tells_a_server_that_runs_from_one_that_does_not(home: Path) -> None:
    check = json.loads(only("HEALTHCHECK").partition("CMD")[2])
    assert json.loads(only("ENTRYPOINT")) == ["agentos-voice"]
    assert json.loads(only("CMD")) == ["serve", "--host", "0.0.0.0"]
    assert check[0] == "python3"
    with serving() as server:
        command = [sys.executable, *(part.replace("http://127.0.0.1:8080", server.url) for part in check[1:])]
        assert server.url in command[-1]
        assert subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
        assert server.end() == 0
        assert subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode != 0
