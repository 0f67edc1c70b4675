"""The OpenAPI document: FastAPI's document of the routes, with every error as a problem."""

from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.gateway.problems import KINDS, MEDIA_TYPE, Problem

_EVERYWHERE: Final = {
    403: "Not allowed: the role, the project, or where the request comes from.",
    408: "The request did not come whole in time.",
    413: "The request is too large.",
    422: "The request is not valid; `field` and `errors` say where.",
    429: "Too many requests; `Retry-After` says when to try again.",
    500: "A fault of the server.",
    503: "Not available now: overloaded, draining, closed, or the store does not answer.",
}
_REF: Final = "#/components/schemas/{model}"


def refusals(*errors: type[VoiceError]) -> dict[int | str, dict[str, Any]]:
    """The documented replies of a route that raises these errors."""
    kinds = [KINDS[error] for error in errors]
    return {kind.status: {"description": f"{kind.title} (`{kind.name}`)."} for kind in kinds}


def documented(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        for operation in _operations(document):
            _with_problems(operation)
        schemas: dict[str, Any] = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        _, made = models_json_schema([(Problem, "serialization")], ref_template=_REF)
        for name, schema in made["$defs"].items():
            schemas.setdefault(name, schema)
        app.openapi_schema = document
    return app.openapi_schema


def _operations(document: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _with_problems(operation: dict[str, Any]) -> None:
    replies: dict[str, Any] = operation["responses"]
    replies.pop("422", None)  # FastAPI's own form of this error
    for status, description in _EVERYWHERE.items():
        replies.setdefault(str(status), {"description": description})
    if operation.get("security"):
        replies.setdefault("401", {"description": "The request is not authenticated: a bearer token is needed."})
    for code, found in replies.items():
        if int(code) >= 400:
            found["content"] = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    for code in ("429", "503"):
        replies[code].setdefault("headers", {})["Retry-After"] = {
            "description": "Seconds after which the same request may work, if that is known.",
            "schema": {"type": "integer"},
        }
