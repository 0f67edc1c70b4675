"""Real speech, a port with a note of everything it says, and an engine whose faults are scripted."""

import shutil
import subprocess
import textwrap
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.voice.messages import Finished, Hear, Heard, Listen, Unheard, Utterance
from agentos.core.communication.voice import extensions
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.stt.port import SpeechPort
from agentos.core.communication.voice.stt.registry import Engines
from machines.audio import AudioFormat
from machines.session import STTProvider

PATIENCE_SECONDS = 60


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """A worker process takes a while to start, so uvloop has its turn in one test only."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def speak(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Spoken text as 16 kHz mono PCM."""
    if shutil.which("flite") is None:
        pytest.skip("needs Debian's flite to speak the test sentences")
    folder = tmp_path_factory.mktemp("speech")

    def spoken(text: str) -> bytes:
        path = folder / f"{text}.wav"
        if not path.exists():
            subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(path)], check=True, timeout=30)
        with wave.open(str(path)) as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
            return bytes(sound.readframes(sound.getnframes()))

    return spoken


class Call:
    """One session's audio and everything that was told of it."""

    def __init__(self, port: SpeechPort, session_id: str) -> None:
        self.session_id = session_id
        self.facts: list[Any] = []
        self.room = 0
        self.handed_over = 0
        self.next = 0
        self.news = anyio.Event()
        self._port = port
        self._frame_bytes = 640
        self._audio: dict[int, bytes] = {}

    def listen(self, engine: STTProvider = STTProvider.POCKETSPHINX, audio_format: AudioFormat | None = None) -> None:
        form = audio_format or AudioFormat()
        self._frame_bytes = form.frame_bytes
        self._port.submit(Listen(self.session_id, engine, form, self))

    def say(self, audio: bytes, frames_at_once: int = 5) -> None:
        """Hand audio over, as the next frames."""
        piece = frames_at_once * self._frame_bytes
        for at in range(0, len(audio), piece):
            data = audio[at : at + piece]
            count = -(-len(data) // self._frame_bytes)
            self._audio[self.next] = data
            self._port.submit(Hear(self.session_id, self.next, count))
            self.next += count
            self.handed_over += count

    def take(self, first: int) -> bytes:
        return self._audio.pop(first)

    def told(self, fact: object) -> None:
        self.facts.append(fact)
        if isinstance(fact, Utterance) and fact.heard is not None:
            self.facts.append(fact.heard)
        self.news.set()
        self.news = anyio.Event()

    def of(self, kind: type) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    @property
    def text(self) -> str:
        return " ".join(fact.text for fact in self.of(Utterance))

    @property
    def unheard(self) -> dict[str, int]:
        """Frames by reason, after a look at whether the account is sound."""
        upto = 0
        lost: set[int] = set()
        reasons: Counter[str] = Counter()
        for fact in self.facts:
            if isinstance(fact, Heard):
                assert fact.upto > upto, "heard goes forward"
                assert fact.frames == fact.upto - upto - len(lost & set(range(upto, fact.upto))), "each is heard once"
                upto = fact.upto
            if isinstance(fact, Unheard):
                assert fact.count > 0
                run = set(range(fact.first, fact.first + fact.count))
                assert not run & lost, "a frame is lost once"
                assert fact.first >= upto, "what was heard isn't lost"
                lost |= run
                reasons[fact.reason] += fact.count
        return dict(reasons)

    async def until(self, enough: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE_SECONDS):
            while not enough():
                with anyio.move_on_after(0.1):  # a fact wakes it at once; room and process ids are looked at
                    await self.news.wait()

    async def finished(self) -> None:
        await self.until(lambda: bool(self.of(Finished)))


class Desk:
    """A port and its calls."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.calls: dict[str, Call] = {}
        engines = Engines(load_settings())
        self.port = SpeechPort(
            take=self._take, tell=self._tell, post=self._tell, room=self._room, engines=engines, **settings
        )

    def call(self, session_id: str = "voice-1") -> Call:
        self.calls[session_id] = Call(self.port, session_id)
        return self.calls[session_id]

    def _take(self, session_id: str, first: int, count: int) -> bytes:
        return self.calls[session_id].take(first)

    def _tell(self, to: Call, fact: object) -> None:
        to.told(fact)

    def _room(self, session_id: str, frames: int) -> None:
        self.calls[session_id].room += frames


@pytest.fixture
def desk() -> Callable[..., AbstractAsyncContextManager[Desk]]:
    """`async with desk(**settings) as a_desk`: a running port, cancelled at the end."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Desk]:
        usual = {"workers": 1, "start_timeout_seconds": 40, "hang_timeout_seconds": 30, "backlog_frames": 1500}
        a_desk = Desk(usual | settings)
        async with anyio.create_task_group() as tasks:
            await tasks.start(a_desk.port.run)
            yield a_desk
            tasks.cancel_scope.cancel()

    return opened


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in engine for GOOGLE, found by its entry point; the session id says what it does. Gives its folder.

    Each 10 frames are an utterance `N samples`. `raise`, `abort` and `print` in the id do so at the first audio; `wait` waits
    for the file `go`. While there is a file `slow`, each feed takes a fifth of a second.
    """
    folder = tmp_path / "plugin"
    (folder / "scripted-1.dist-info").mkdir(parents=True)
    (folder / "scripted-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1\n")
    (folder / "scripted-1.dist-info" / "entry_points.txt").write_text(
        "[agentos_voice.stt]\ngoogle = scripted_engine:scripted\n"
    )
    source = f"""
        import os, time
        from pathlib import Path
        from agentos.core.communication.voice.stt.base import FinalText, SpeechEngine

        scripted = SpeechEngine(name="google", factory="scripted_engine:Scripted")

        class Scripted:
            settled_ms = 0

            def __init__(self, configuration, options):
                pass

            def start(self, session):
                self.session, self.fed, self.settled_ms = session, 0, 0

            def feed(self, pcm):
                if "raise" in self.session:
                    raise RuntimeError("scripted")
                if "abort" in self.session:
                    os.abort()
                if "print" in self.session:
                    print("to standard output")
                    os.write(1, b"to descriptor 1\\n")
                while "wait" in self.session and not Path({str(folder / "go")!r}).exists():
                    time.sleep(0.01)
                if Path({str(folder / "slow")!r}).exists():
                    time.sleep(0.2)
                self.fed += len(pcm) // 32
                results = []
                while self.fed - self.settled_ms >= 200:
                    results.append(FinalText("200", self.settled_ms, self.settled_ms + 200))
                    self.settled_ms += 200
                return results

            def finish(self):
                rest, begun = self.fed - self.settled_ms, self.settled_ms
                self.settled_ms = self.fed
                return [FinalText(str(rest), begun, self.fed)] if rest else []

            def abort(self):
                self.fed = self.settled_ms = 0
        """
    (folder / "scripted_engine.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(folder))
    extensions._installed.cache_clear()  # a running program looks its plug-ins up once
    yield folder
    extensions._installed.cache_clear()
