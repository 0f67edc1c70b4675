"""Recordings over HTTP: the whole file, a part of it, or nothing where the asker has it; and never a file of others."""

import fcntl
import io
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import httpx2
import pytest
import soundfile  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from starlette.datastructures import Headers

from agentos.core.communication.voice.gateway.routes import file_stream
from agentos.core.communication.voice.gateway.routes.ranges import Span, Unsatisfiable, asked_for
from agentos.core.communication.voice.recording.recordings import RecordingWriter
from agentos.core.communication.voice.recording.segments import make_private_folder
from machines.recording import RecordingInfo
from tests.voice.gateway.conftest import Run, Running
from tests.voice.gateway.test_problems import is_problem


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes = 5-5 ", (5, 6)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=٣-٤", None),
    ],
)
def test_what_a_range_asks_for(header: str | None, expected: tuple[int, int] | None) -> None:
    assert asked_for(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=9999999999999999999-"])
def test_a_range_behind_the_end(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        asked_for(header, 100)


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d*-\d*", fullmatch=True), st.integers(0, 1000))
def test_a_range_lies_in_the_file(header: str, size: int) -> None:
    try:
        span = asked_for(header, size)
    except Unsatisfiable:
        return
    assert span is None or (isinstance(span, Span) and 0 <= span.first < span.end <= size)


@pytest.mark.anyio
class TestTheFile:
    async def _recorded(self, running: Running, audio: Callable[..., bytes]) -> tuple[str, httpx2.Response]:
        session_id = await running.recorded(audio(48_000))
        path = f"/v1/sessions/{session_id}/recording"
        return path, await running.client.get(path)

    @pytest.mark.parametrize("kind", ["flac", "wav"])
    async def test_it_is_what_was_said(self, run: Run, audio: Callable[..., bytes], kind: str) -> None:
        async with run(recording_format=kind) as running:
            path, reply = await self._recorded(running, audio)
            assert reply.headers["content-type"] == f"audio/{kind}"
            assert reply.headers["content-disposition"] == f'inline; filename="{path.split("/")[3]}.{kind}"'
            assert int(reply.headers["content-length"]) == len(reply.content)
            sound, rate = soundfile.read(io.BytesIO(reply.content), dtype="int16")
            assert (rate, sound.tobytes()) == (16_000, audio(48_000))

    async def test_parts_make_the_whole(
        self, run: Run, audio: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_stream, "CHUNK_BYTES", 1000)
        async with run() as running:
            path, whole = await self._recorded(running, audio)
            size, parts = len(whole.content), b""
            assert whole.headers["accept-ranges"] == "bytes"
            for first in range(0, size, 7_777):
                asked = {"range": f"bytes={first}-{first + 7_776}"}
                part = await running.client.get(path, headers=asked)
                last = min(first + 7_776, size - 1)
                assert part.status_code == 206
                assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
                assert part.headers["etag"] == whole.headers["etag"]
                parts += part.content
            assert parts == whole.content
            end = await running.client.get(path, headers={"range": "bytes=-10"})
            assert end.content == whole.content[-10:]

    async def test_a_range_that_can_not_be(self, run: Run, audio: Callable[..., bytes]) -> None:
        async with run() as running:
            path, whole = await self._recorded(running, audio)
            reply = await running.client.get(path, headers={"range": f"bytes={len(whole.content)}-"})
            is_problem(reply, 416, "range-not-satisfiable")
            assert reply.headers["content-range"] == f"bytes */{len(whole.content)}"
            for header in ("bytes=0-1,4-5", "nonsense", "bytes=9-1"):
                reply = await running.client.get(path, headers={"range": header})
                assert (reply.status_code, reply.content) == (200, whole.content)

    async def test_if_range_gives_a_part_of_the_same_file_only(self, run: Run, audio: Callable[..., bytes]) -> None:
        async with run() as running:
            path, whole = await self._recorded(running, audio)
            for condition, status in (
                (whole.headers["etag"], 206),
                (whole.headers["last-modified"], 206),
                ('"another"', 200),
                (f"W/{whole.headers['etag']}", 200),
                ("Mon, 01 Jan 2001 00:00:00 GMT", 200),
            ):
                asked = {"range": "bytes=0-9", "if-range": condition}
                reply = await running.client.get(path, headers=asked)
                assert reply.status_code == status
                assert reply.content == (whole.content[:10] if status == 206 else whole.content)

    async def test_who_has_it_gets_nothing(self, run: Run, audio: Callable[..., bytes]) -> None:
        async with run() as running:
            path, whole = await self._recorded(running, audio)
            for known in (whole.headers["etag"], f'"x", W/{whole.headers["etag"]}', "*"):
                reply = await running.client.get(path, headers={"if-none-match": known})
                assert (reply.status_code, reply.content) == (304, b"")
                assert reply.headers["etag"] == whole.headers["etag"]
            assert (await running.client.get(path, headers={"if-none-match": '"x"'})).status_code == 200

    async def test_head_tells_the_same_without_the_file(self, run: Run, audio: Callable[..., bytes]) -> None:
        async with run() as running:
            path, whole = await self._recorded(running, audio)
            for headers in ({}, {"range": "bytes=5-8"}):
                head = await running.client.head(path, headers=headers)
                get = await running.client.get(path, headers=headers)
                assert head.content == b""
                assert (head.status_code, head.headers) == (get.status_code, get.headers)
            assert head.headers["content-length"] == "4"
            assert len(whole.content) > 4

    async def test_a_session_without_a_recording_says_why(self, run: Run) -> None:
        async with run() as running:
            plain, recorded = await running.create(), await running.create(metadata={"recording_enabled": True})
            silent = await running.create(metadata={"recording_enabled": True})
            await running.client.post(f"/v1/sessions/{silent}/stop")
            for session_id, why in ((plain, "not recorded"), (recorded, "not stopped"), (silent, "no recording")):
                reply = await running.client.get(f"/v1/sessions/{session_id}/recording")
                assert why in is_problem(reply, 404, "no-recording").detail

    async def test_one_that_is_being_finished_says_when_to_come_again(
        self, run: Run, audio: Callable[..., bytes]
    ) -> None:
        async with run(recording_segment_seconds=1) as running:
            session_id = await running.create(metadata={"recording_enabled": True})
            await running.service.dispatch_audio_chunk(session_id, audio(40_000))
            path, folder = f"/v1/sessions/{session_id}", running.service.settings.recordings / session_id
            make_private_folder(folder)  # the audio may not have come so far
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # another process finishes it
            try:
                stopped = (await running.client.post(f"{path}/stop")).json()["session"]["result"]["recording"]
                assert (stopped["state"], stopped["samples"]) == ("finishing", 40_000)
                for ask in (running.client.get, running.client.head):
                    reply = await ask(f"{path}/recording")
                    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
                problem = is_problem(await running.client.get(f"{path}/recording"), 503, "recording-finishing")
                assert problem.retry_after_seconds == 1
                for file in folder.glob("000000.*"):
                    file.write_bytes(b"damaged")
            finally:
                os.close(descriptor)
            await running.service.recording(session_id)
            now = (await running.client.get(path)).json()["result"]["recording"]
            assert now == {**stopped, "state": "failed"}
            reply = await running.client.get(f"{path}/recording")
            assert "is damaged" in is_problem(reply, 404, "no-recording").detail

    async def test_one_whose_disk_hung_at_the_end_is_finished_once_it_answers(
        self, run: Run, audio: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers, write = Event(), RecordingWriter.write

        def hanging(writer: RecordingWriter, *arguments: Any) -> None:
            assert answers.wait(20)
            write(writer, *arguments)

        monkeypatch.setattr(RecordingWriter, "write", hanging)
        async with run(heartbeat_seconds=0.05, heartbeat_timeout_seconds=0.1) as running:
            try:
                session_id = await running.create(metadata={"recording_enabled": True})
                path = f"/v1/sessions/{session_id}"
                await running.service.dispatch_audio_chunk(session_id, audio(16_000))
                stopped = (await running.client.post(f"{path}/stop")).json()["session"]["result"]
                assert (stopped["recording"], stopped["frames"]["dropped"]) == (None, {"media_silent": 50})
                is_problem(await running.client.get(f"{path}/recording"), 503, "recording-finishing")
            finally:
                answers.set()
            await running.service.recording(session_id)
            assert (await running.client.get(f"{path}/recording")).status_code == 200
            assert (await running.client.get(path)).json()["result"]["recording"]["state"] == "ready"

    async def test_a_file_that_is_gone(self, run: Run, audio: Callable[..., bytes], home: Path) -> None:
        async with run() as running:
            path, _ = await self._recorded(running, audio)
            (file,) = home.glob("recordings/*/*.flac")
            file.unlink()
            reply = await running.client.get(path)
            is_problem(reply, 404, "no-recording")
            assert str(home) not in reply.text
            file.mkdir()
            is_problem(await running.client.get(path), 404, "no-recording")

    async def test_only_the_file_in_the_folder_of_its_session_is_served(
        self, run: Run, audio: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with run() as running:
            path, whole = await self._recorded(running, audio)
            kept = await running.service.recording(path.split("/")[3])
            assert kept is not None
            moved = f"/another/home/recordings/of-another/{Path(kept.path).name}"  # its home was elsewhere then
            secret = tmp_path / "secret.flac"
            secret.write_bytes(b"secret")
            inside = running.service.settings.recordings / ".." / ".." / "secret.flac"
            for place, status in ((moved, 200), (str(secret), 404), (str(inside), 404), ("..", 404), ("", 404)):

                async def recording(session_id: str, *, wait: bool = True, place: str = place) -> RecordingInfo:
                    return replace(kept, path=place)

                monkeypatch.setattr(running.service, "recording", recording)
                reply = await running.client.get(path)
                assert reply.status_code == status, place
                assert status == 404 or reply.content == whole.content

    async def test_open_files_are_closed_when_the_reader_goes(self, run: Run, audio: Callable[..., bytes]) -> None:
        async with run() as running:
            path, _ = await self._recorded(running, audio)

            gone = anyio.Event()

            async def receive() -> Any:
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    gone.set()
                    await anyio.sleep_forever()

            streams: file_stream.FileStreams = running.app.state.files
            (file,) = running.service.settings.recordings.glob("*/*.flac")
            response = await streams.response(file, Headers({}), media_type="audio/flac", name="x", head=False)
            assert response is not None
            opened = response._file  # type: ignore[attr-defined]
            with anyio.fail_after(30):
                await response({"type": "http"}, receive, send)
            assert opened.closed
            assert (await running.client.get(path)).status_code == 200
