"""The console in a real browser: a server in a process of its own, headless Chromium, a microphone that plays a file.

These files are not collected with the others, since Playwright's event loop can't share a process with theirs:
`tests/voice/gateway/console/test_in_the_browser.py` runs them, and so does `pytest -n 0 tests/browser/*.py`. Screenshots go to
the folder that the variable `BROWSER_ARTIFACTS` names.
"""

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

SPEECH = Path("/usr/share/pocketsphinx/test/data/goforward.raw")  # Debian's pocketsphinx-testdata
RATE = 16_000
AXE = "axe-core@4.14.1"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 15_000


expect.set_options(timeout=WAIT_MS)


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Server and browser live as long as the session, so what a test leaves can't be told from what they do."""


# --- the server ----------------------------------------------------------------------------------------------------


@contextmanager
def serving(home: Path, *options: str) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, "-m", "agentos.core.communication.voice.cli", "serve", "--port", "0"]
    with subprocess.Popen([*command, "--home", str(home), *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            assert told.startswith("listening on "), "the server did not begin"
            yield told.split()[-1]
        finally:
            process.terminate()
            process.wait(30)


class Restarted:
    """A server that is killed and begun again on the same home and port; a context manager."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = "0"
        self.url = ""

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def begin(self) -> None:
        command = [sys.executable, "-m", "agentos.core.communication.voice.cli", "serve", "--no-auth"]
        self._process = subprocess.Popen(
            [*command, "--port", self._port, "--home", str(self._home)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        assert told.startswith("listening on "), "the server did not begin"
        self.url = told.split()[-1]
        self._port = self.url.rpartition(":")[2]

    def kill(self) -> None:
        """Without a chance to clean up."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that asks nobody who they are."""
    with serving(tmp_path_factory.mktemp("open"), "--no-auth") as url:
        yield url


class Guarded:
    """A server that wants tokens, and a way to get one."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self._home = home
        self._ids: dict[str, str] = {}

    def token(self, *options: str) -> str:
        """A new one."""
        made = self._run("create", "a test", *options)
        self._ids[made["token"]] = made["id"]
        return str(made["token"])

    def revoke(self, token: str) -> None:
        """It is not valid any more."""
        self._run("revoke", self._ids[token])

    def _run(self, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "agentos.core.communication.voice.cli", "token", *words, "--json"]
        done = subprocess.run([*command, "--home", self._home], check=True, capture_output=True, text=True)
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    home = tmp_path_factory.mktemp("guarded")
    with serving(home) as url:
        yield Guarded(url, home)


class Line:
    """A TCP line to a server, that can be cut; a context manager. `url` is its near end."""

    def __init__(self, far: str) -> None:
        host, _, port = far.removeprefix("http://").partition(":")
        self._far = (host, int(port))
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._up = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """All connections break, and none is made until `mend`."""
        with self._lock:
            self._up = False
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Connections can be made again."""
        with self._lock:
            self._up = True

    def _start(self, work: Callable[..., None], *given: socket.socket) -> None:
        thread = threading.Thread(target=work, args=given)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._up:
                    near.close()
                    continue
                far = socket.create_connection(self._far)
                self._ends += [near, far]
            self._start(self._pass_on, near, far)
            self._start(self._pass_on, far, near)

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()


@pytest.fixture
def line(server: str) -> Iterator[Line]:
    with Line(server) as between:
        yield between


# --- the browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of silence and "go forward ten meters", as a file for the microphone; silence follows."""
    if not SPEECH.exists():
        pytest.skip("the microphone needs something to say: apt-get install pocketsphinx-testdata")
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(bytes(RATE) + SPEECH.read_bytes())
    return path


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(driver: Playwright, speech: Path) -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("the console's tests need Debian's chromium: apt-get install chromium")
    microphone = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={speech}%noloop"]
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", *microphone]
    browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments)
    yield browser
    browser.close()


class Visit:
    """A page of a new context. What goes wrong in it is in `faults`, and is asserted to be nothing at the end.

    A test that brings a fault about says what the browser's notes of it contain in `expected`: notes may come late.
    """

    def __init__(self, context: BrowserContext, url: str, kind: str, shots: Path, axe: str) -> None:
        self.context = context
        self.url = url
        self.faults: list[str] = []
        self.expected: tuple[str, ...] = ()
        self._kind = kind
        self._shots = shots
        self._axe = axe
        context.set_default_timeout(WAIT_MS)
        self.page: Page = context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", lambda request: self._on_request(request.url))
        self.page.on("websocket", lambda socket: self._on_request(socket.url))

    def open(self, where: str = "") -> Page:
        """The console, at this view."""
        self.page.goto(f"{self.url}/console/{where}")
        self.page.locator("h1").wait_for()
        return self.page

    def look(self, name: str) -> None:
        """Keep a picture of the page; axe finds nothing wrong with it, and nothing sticks out at its side."""
        self.page.screenshot(path=self._shots / f"{name}-{self._kind}.png", full_page=True)
        self.page.evaluate(self._axe)
        found = self.page.evaluate("axe.run()")
        wrong = [(one["id"], one["impact"], [n["html"] for n in one["nodes"]]) for one in found["violations"]]
        assert wrong == []
        assert found["passes"], "axe looked at nothing"
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        # a recording that is being packed is asked for again
        packed = " 503 " in message.text and message.location.get("url", "").endswith("/recording")
        if not packed:
            self.faults.append(f"console: {message.text}")

    def _on_request(self, url: str) -> None:
        if not url.startswith((f"{self.url}/", f"blob:{self.url}/", f"{self.url.replace('http:', 'ws:')}/")):
            self.faults.append(f"a request to somewhere else: {url}")


Visiting = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser, shots: Path, axe: str) -> Iterator[Visiting]:
    """`visit(url, width=…, dark=…, microphone=…)`: a page that may use the microphone unless said otherwise."""
    visits: list[Visit] = []

    def made(url: str, *, width: int = 1180, dark: bool = False, microphone: bool = True) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            permissions=["microphone"] if microphone else [],
            reduced_motion="reduce",
        )
        visits.append(Visit(context, url, f"{width}-{'dark' if dark else 'light'}", shots, axe))
        return visits[-1]

    yield made
    for one in visits:
        one.context.close()
    assert [fault for one in visits for fault in one.faults if not any(text in fault for text in one.expected)] == []


# --- what is looked at ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("BROWSER_ARTIFACTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core, from npm, and the one that it should be."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("axe-core comes by npm: apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run([npm, "pack", AXE], cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm can't get {AXE}: {done.stderr.strip().splitlines()[-1]}")
    (package,) = folder.glob("*.tgz")
    assert base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() == AXE_SHA512
    with tarfile.open(package) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()
