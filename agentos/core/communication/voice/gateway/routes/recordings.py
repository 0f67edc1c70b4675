"""Recordings: the file of a session, whole or in part."""

from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.gateway.documentation import refusals
from agentos.core.communication.voice.gateway.problems import URN, Problem, reply
from agentos.core.communication.voice.gateway.routes.dependencies import (
    Reader,
    Service,
    SessionId,
    no_query,
    visible_session,
)
from agentos.core.communication.voice.gateway.routes.file_stream import FileStreams
from agentos.core.communication.voice.gateway.routes.ranges import Unsatisfiable
from machines.recording import RecordingInfo, RecordingState
from machines.session import VoiceSession

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

MEDIA_TYPES: Final = {".flac": "audio/flac", ".wav": "audio/wav"}
_SOUND: Final = {name: {"schema": {"type": "string", "format": "binary"}} for name in MEDIA_TYPES.values()}
_REPLIES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The whole file.", "content": _SOUND},
    206: {"description": "The part that `Range` asks for.", "content": _SOUND},
    304: {"description": "The file is the one that `If-None-Match` names."},
    416: {"description": "The range lies behind the end of the file (`range-not-satisfiable`)."},
    **refusals(SessionNotFound),
    404: {"description": "There is no such session, or it has no recording (`no-recording`)."},
    503: {
        "description": "The session has stopped, and its recording is not one file yet (`recording-finishing`); "
        "`Retry-After` says when to try again. Or not available now, as everywhere."
    },
}


@router.get(
    "/{session_id}/recording",
    operation_id="get_session_recording",
    summary="The recording of a session",
    dependencies=[Depends(no_query)],
    response_class=Response,
    responses=_REPLIES,
)
async def get_session_recording(
    session_id: SessionId, request: Request, service: Service, principal: Reader
) -> Response:
    """The sound file of a session that has stopped, FLAC or WAV. `Range` asks for one part of the file; a request for several
    parts gets the whole file. `If-Range` and `If-None-Match` take its `ETag`."""
    session = await visible_session(request, service, principal, session_id)
    recording = None if session.result is None else await service.recording(session_id, wait=False)
    path = None if recording is None else _file_of(recording, service.settings.recordings / session.session_id)
    if path is None:
        return _no_recording(session, recording, request)
    streams: FileStreams = request.app.state.files
    try:
        response = await streams.response(
            path,
            request.headers,
            media_type=MEDIA_TYPES[path.suffix],
            name=f"{session_id}{path.suffix}",
            head=request.method == "HEAD",
        )
    except Unsatisfiable as error:
        return _unsatisfiable(error.args[0], request)
    return _no_recording(session, recording, request) if response is None else response


router.head(
    "/{session_id}/recording",
    operation_id="head_session_recording",
    summary="What the recording of a session is",
    dependencies=[Depends(no_query)],
    response_class=Response,
    responses={status: {"description": found["description"]} for status, found in _REPLIES.items()},
)(get_session_recording)


def _file_of(recording: RecordingInfo, folder: Path) -> Path | None:
    """The file of a finished recording, in the folder of its session: the home may have been moved since the result was
    written, and no file elsewhere is served."""
    if recording.state is not RecordingState.READY:
        return None
    path = folder / Path(recording.path).name
    return path if path.suffix in MEDIA_TYPES else None


def _no_recording(session: VoiceSession, recording: RecordingInfo | None, request: Request) -> Response:
    if not session.recording_enabled:
        detail = "the session was not recorded: `recording_enabled` in its metadata asks for that"
    elif session.result is None:
        detail = "the session has not stopped yet; its recording is there when it has"
    elif recording is not None and recording.state is RecordingState.FAILED:
        detail = "the recording could not be finished: it is damaged, and evidence says so; what there is of it is kept"
    else:
        detail = "there is no recording, or its file is gone"
    problem = Problem(
        type=f"{URN}no-recording",
        title="There is no recording",
        status=404,
        detail=detail,
        instance=request.url.path,
        session_id=session.session_id,
        state=session.state,
    )
    return reply(problem)


def _unsatisfiable(size: int, request: Request) -> Response:
    problem = Problem(
        type=f"{URN}range-not-satisfiable",
        title="The range lies behind the end of the file",
        status=416,
        detail=f"the file has {size:,} bytes",
        instance=request.url.path,
    )
    return reply(problem, {"Content-Range": f"bytes */{size}"})
