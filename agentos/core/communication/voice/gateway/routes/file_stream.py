"""A file as a response: whole or the requested range, 304 if the client's copy is current, and never whole in memory."""

import os
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from stat import S_ISREG
from typing import IO, Final

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentos.core.communication.voice.gateway.routes.presence import while_there
from agentos.core.communication.voice.gateway.routes.ranges import Span, Unsatisfiable, asked_for

CHUNK_BYTES: Final = 256 * 1024
THREADS: Final = 8  # most threads that read files at once, so that slow disks leave threads for the calls


class FileStreams:
    """Makes responses of files. For one event loop."""

    def __init__(self) -> None:
        self._threads: anyio.CapacityLimiter | None = None  # made on the loop, at the first use

    async def response(self, path: Path, asked: Headers, *, media_type: str, name: str, head: bool) -> Response | None:
        """The response to a GET, or with `head` a HEAD, with the request headers `asked`; None if there is no such file.

        It has a strong `ETag` and `Last-Modified`, and knows `If-None-Match`, `Range` and `If-Range`. Raises `Unsatisfiable`
        for a range behind the end, with the file's size.
        """
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(THREADS)
        opened = await anyio.to_thread.run_sync(_opened, path, limiter=self._threads)
        if opened is None:
            return None
        file, status = opened
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        changed = format_datetime(datetime.fromtimestamp(int(status.st_mtime), UTC), usegmt=True)
        headers = {
            "ETag": etag,
            "Last-Modified": changed,
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
        }
        try:
            if _has_it(asked.get("if-none-match"), etag):
                file.close()
                return Response(status_code=304, headers=headers)
            whole = Span(0, status.st_size)
            may_be_part = asked.get("if-range", etag) in {etag, changed}
            part = asked_for(asked.get("range"), status.st_size) if may_be_part else None
        except Unsatisfiable:
            file.close()
            raise Unsatisfiable(status.st_size) from None
        span = part or whole
        headers["Content-Length"] = str(span.end - span.first)
        headers["Content-Disposition"] = f'inline; filename="{name}"'
        if part is not None:
            headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{status.st_size}"
        code = 200 if part is None else 206
        if head:
            file.close()
            return Response(status_code=code, headers=headers, media_type=media_type)
        return _FileResponse(file, span, self._threads, status=code, headers=headers, media_type=media_type)


class _FileResponse(Response):
    """Sends a part of a file, and closes the file in any case."""

    def __init__(
        self,
        file: IO[bytes],
        span: Span,
        threads: anyio.CapacityLimiter,
        *,
        status: int,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        super().__init__(status_code=status, headers=headers, media_type=media_type)
        self._file = file
        self._span = span
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the response."""
        del scope
        with self._file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with while_there(receive):
                await self._send_file(send)

    async def _send_file(self, send: Send) -> None:
        at, end = self._span
        while at < end:
            data = await anyio.to_thread.run_sync(
                os.pread, self._file.fileno(), min(CHUNK_BYTES, end - at), at, limiter=self._threads
            )
            if not data:
                return  # the file was cut short meanwhile; the server sees that the body is short, and closes the connection
            at += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": at < end})
        if self._span.first == end:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _opened(path: Path) -> tuple[IO[bytes], os.stat_result] | None:
    try:
        file = path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    status = os.fstat(file.fileno())
    if not S_ISREG(status.st_mode):
        file.close()
        return None
    return file, status


def _has_it(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    known = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in known or "*" in known
