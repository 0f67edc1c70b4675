"""The console: web pages for an operator, from files that need no build and load nothing from other servers.

All its URLs are relative, so that it works wherever the app is mounted. Its pages and scripts are the same for everybody, and
open to everybody; all data that they show comes from the API, with the user's own token.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.exceptions import HTTPException

from agentos.core.communication.voice.gateway.access.control import access_of, checked
from agentos.core.communication.voice.gateway.routes.dependencies import Service
from machines.lifecycle import Lifecycle
from machines.session import SESSION

FOLDER: Final = Path(__file__).parents[1] / "console"
PAGE: Final = "index.html"
MEDIA_TYPES: Final = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
_SOURCES: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "media-src": "blob:",  # a recording, fetched with the user's token
    "worker-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Cache-Control": "no-cache",  # cached, and revalidated by its ETag
        "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in _SOURCES.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "X-Content-Type-Options": "nosniff",
    }
)

router = APIRouter(dependencies=[Depends(checked)], include_in_schema=False)


class _ConsoleFile(NamedTuple):
    body: bytes
    media_type: str
    etag: str


@router.api_route("/", methods=["GET", "HEAD"])
async def to_the_console() -> Response:
    """Redirect from the server's root to the console; relative, so that it also works where a host mounts the app."""
    return Response(status_code=307, headers={"Location": "console/"})


@router.api_route("/console", methods=["GET", "HEAD"])
async def to_the_page(request: Request) -> Response:
    """Redirect to the page's URL with a slash at the end, which its relative URLs need."""
    return Response(status_code=307, headers={"Location": f"{request.url.path.rpartition('/')[2]}/"})


@router.api_route("/console/", methods=["GET", "HEAD"])
async def page(if_none_match: Annotated[str, Header()] = "") -> Response:
    """The console's page."""
    return _reply(_files()[PAGE], if_none_match)


@router.api_route("/console/about.json", methods=["GET", "HEAD"])
async def about(request: Request, service: Service) -> dict[str, Any]:
    """The data that the page needs before the user has signed in: whether a token is needed, the engines, whether calls may go
    on after a restart, and the states of a session with the moves between them."""
    return {
        "version": request.app.version,
        "authentication": access_of(request).authentication,
        "resumable": service.settings.resume_window_seconds > 0,
        "stt_providers": service.engine_names(),
        "machine": machine(SESSION),
    }


@router.api_route("/console/{name}", methods=["GET", "HEAD"])
async def file(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
    """A script, a style sheet, a picture."""
    found = _files().get(name)
    if found is None:
        raise HTTPException(404)
    return _reply(found, if_none_match)


def machine(lifecycle: Lifecycle[Any]) -> dict[str, Any]:
    """A state machine as data for a drawing."""
    return {
        "name": lifecycle.name,
        "states": [state.value for state in lifecycle.states],
        "initial": lifecycle.initial.value,
        "final": [state.value for state in lifecycle.states if state in lifecycle.final],
        "moves": [
            {"trigger": move.trigger, "source": move.source.value, "dest": move.dest.value, "why": move.why}
            for move in lifecycle.moves
        ],
        "deadlines": {state.value: trigger for state, trigger in lifecycle.deadlines.items()},
    }


@cache
def _files() -> Mapping[str, _ConsoleFile]:
    """Every file of the console by name; read once, a hundred kilobytes."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        body = path.read_bytes()
        found[path.name] = _ConsoleFile(body, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return MappingProxyType(found)


def _reply(found: _ConsoleFile, if_none_match: str) -> Response:
    headers = {**HEADERS, "ETag": found.etag}
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    if found.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
