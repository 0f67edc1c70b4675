"""`agentos-voice token`: access tokens. Only their hashes are stored."""

import re
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import RenderableType
from rich.text import Text

from agentos.core.communication.voice.cli.exits import InputError
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, fields, table, whole
from agentos.core.communication.voice.cli.stores import reading, writing
from agentos.core.communication.voice.storage.tokens import LIFETIME_LIMIT_SECONDS, AccessToken, Role, TokenStore
from agentos.core.time import from_ms, utc_now_ms

NEVER = "never"
DEFAULT_LIFETIME = "90d"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)


def create(
    name: Annotated[str, Parameter(help="The owner or purpose of the token.")],
    /,
    *,
    role: Annotated[
        Literal["admin", "operator", "auditor", "project"],
        Parameter(help="The token's rights: everything, running calls, reading, or the calls of one project."),
    ],
    project: Annotated[str | None, Parameter(help="The project of a token with the role project.")] = None,
    expires: Annotated[
        str,
        Parameter(help="How long it is valid: a number of days, hours, minutes or seconds like 90d or 12h, or never."),
    ] = DEFAULT_LIFETIME,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome:
    """Make a token. It is shown only once; the database keeps its hash alone."""
    del json_output
    if role == "project" and project is None:
        raise InputError("a token of the role project is for one project: name it with --project")
    if role != "project" and project is not None:
        raise InputError(
            f"--project is for the role project, and this one is {role}: add --role project, or leave it out"
        )
    seconds = _lifetime_seconds(expires)
    with writing(home) as store:
        tokens = TokenStore(store)
        known = {token.id for token in tokens.list()}
        secret = tokens.create(name, seconds, role=Role(role), project=project)
        made = next(token for token in reversed(tokens.list()) if token.id not in known and token.name == name)
    rows: list[tuple[str, RenderableType]] = [
        ("token", whole(secret)),
        ("id", whole(made.id)),
        ("name", made.name),
        ("role", made.role.value),
        *([] if made.project is None else [("project", made.project)]),
        ("expires", _time(made.expires_at_ms)),
    ]
    note = Text("Keep it now: it can't be shown again.", style="yellow")
    return CommandOutcome({"token": secret, **_as_json(made)}, (fields(rows), note))


def listing(*, home: Home = None, json_output: Json = False) -> CommandOutcome:
    """The tokens with their ids, oldest first, including expired and revoked ones; never the secrets themselves."""
    del json_output
    with reading(home) as store:
        found = [] if store is None else TokenStore(store).list()
    data = {"tokens": [_as_json(token) for token in found]}
    if not found:
        return CommandOutcome(data, (Text("no tokens"),))
    rows = (
        (
            token.id,
            token.name,
            token.role.value,
            token.project or "-",
            _state(token),
            _time(token.created_at_ms),
            _time(token.expires_at_ms),
        )
        for token in found
    )
    return CommandOutcome(data, (table(("id", "name", "role", "project", "state", "created", "expires"), rows),))


def revoke(
    token_id: Annotated[str, Parameter(help="The token's id, not the token.")],
    /,
    *,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome:
    """Make a token invalid from now on; a token that was revoked before stays unchanged."""
    del json_output
    with writing(home) as store:
        tokens = TokenStore(store)
        if not tokens.revoke(token_id) and token_id not in {token.id for token in tokens.list()}:
            raise InputError(f"there is no token with the id {token_id!r}; see `token list`")
    return CommandOutcome({"id": token_id, "revoked": True}, (whole(f"{token_id} is revoked"),))


def _lifetime_seconds(text: str) -> int | None:
    """The lifetime of a token in seconds, from the text of `--expires`; None for ever."""
    if text == NEVER:
        return None
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= LIFETIME_LIMIT_SECONDS:
        raise InputError(
            f"--expires must be like 90d, 12h, 30m or 45s, at most a hundred years, or never; got {text!r}"
        )
    return seconds


def _as_json(token: AccessToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "project": token.project,
        "state": _state(token),
        "created_at": _iso(token.created_at_ms),
        "expires_at": _iso(token.expires_at_ms),
        "revoked_at": _iso(token.revoked_at_ms),
    }


def _state(token: AccessToken) -> str:
    if token.revoked_at_ms is not None:
        return "revoked"
    return "valid" if token.stands(utc_now_ms()) else "expired"


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else from_ms(at_ms).isoformat(timespec="milliseconds")


def _time(at_ms: int | None) -> str:
    return "never" if at_ms is None else from_ms(at_ms).isoformat(timespec="seconds")
