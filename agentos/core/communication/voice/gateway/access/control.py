"""Access control: the rules for roles, projects, origins and host names at the door of the server.

Refusals go into evidence (`refusals.py`). A session of another project is answered like one that does not exist, so that
guessing ids tells nothing.
"""

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Final
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from agentos.core.communication.voice.errors import (
    Forbidden,
    InvalidRequest,
    InvalidTicket,
    RateLimited,
    SessionNotFound,
    Unauthenticated,
    VoiceError,
)
from agentos.core.communication.voice.gateway.access.connections import known
from agentos.core.communication.voice.gateway.access.exposure import (
    allowed_origin,
    host_of,
    is_loopback,
    is_loopback_name,
    is_same_site,
    read_origin,
)
from agentos.core.communication.voice.gateway.access.known_tokens import KnownTokens, Whose
from agentos.core.communication.voice.gateway.access.limits import RateLimit, client_of
from agentos.core.communication.voice.gateway.access.proxies import asked_securely, client_address
from agentos.core.communication.voice.gateway.access.refusals import Refusal, Refusals, redacted
from agentos.core.communication.voice.secrets_in_text import holds_secret
from agentos.core.communication.voice.sessions.stream_tickets import NO_TOKEN
from agentos.core.communication.voice.settings import Network
from agentos.core.communication.voice.storage.tokens import Role
from agentos.core.time import monotonic_ms
from machines.session import VoiceSession

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
HASH_DIGITS: Final = 8  # of an unknown token's hash: enough to tell two apart, and gives nothing away


class Permission(str, Enum):
    """One thing that a role may be allowed."""

    CREATE = "create sessions"
    STOP = "stop sessions"
    STREAM = "stream audio"
    READ = "read sessions"
    EXPLAIN = "ask what the policy would say"
    EVIDENCE = "read evidence"
    STATISTICS = "read statistics"
    DRAIN = "drain the service"


_CALLS: Final = frozenset(
    {Permission.CREATE, Permission.STOP, Permission.STREAM, Permission.READ, Permission.EXPLAIN},
)
PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        Role.ADMIN: frozenset(Permission),
        Role.OPERATOR: _CALLS | {Permission.STATISTICS, Permission.DRAIN},
        Role.AUDITOR: frozenset({Permission.READ, Permission.EXPLAIN, Permission.EVIDENCE, Permission.STATISTICS}),
        Role.PROJECT: _CALLS,
    }
)
"""The permissions of each role; `Role.PROJECT` has them in its own project only."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated user of a request. `project` is the only project that it may see; None for all."""

    token_id: str
    name: str
    role: Role
    project: str | None = None

    def may(self, permission: Permission) -> bool:
        """Whether the principal's role has this permission."""
        return permission in PERMISSIONS[self.role]

    def sees(self, project_id: str) -> bool:
        """Whether the principal may see this project."""
        return self.project is None or self.project == project_id


LOCAL: Final = Principal(NO_TOKEN, "local", Role.ADMIN)
"""The principal of every request to a server without authentication."""


class AccessControl:
    """The rules of one server; `app.state.access` of its app. For one event loop.

    `whose` looks tokens up and may block. With `authentication` off every principal is `LOCAL`, and the server answers to
    loopback names only; `check_exposure` says where that is allowed. `origins` are the other sites whose pages may use the
    server, `hosts` the names to which it answers, all if None. `proxies` are the networks of trusted proxies, which tell a
    client's address. `unknown` limits the unknown tokens and tickets that one client may send, `requests` the requests of one
    principal.
    """

    def __init__(  # noqa: PLR0913 - all but two by their names
        self,
        whose: Whose,
        refusals: Refusals,
        *,
        authentication: bool = True,
        origins: Collection[str] = (),
        hosts: Collection[str] | None = None,
        proxies: Sequence[Network] = (),
        unknown: RateLimit | None = None,
        requests: RateLimit | None = None,
        clock: Callable[[], int] = monotonic_ms,
    ) -> None:
        self.refusals = refusals
        self.authentication = authentication
        self._tokens = KnownTokens(whose, clock=clock)
        self._origins = frozenset(allowed_origin(text) for text in origins)
        self._hosts = None if hosts is None else frozenset(name.lower().removesuffix(".") for name in hosts)
        self._proxies = tuple(proxies)
        self._unknown = unknown if unknown is not None else RateLimit(20, burst=100)
        self._requests = requests if requests is not None else RateLimit(100, burst=400)
        self._clock = clock

    # --- the principal ---------------------------------------------------------------------------------------------

    async def admitted(self, connection: HTTPConnection, permission: Permission) -> Principal:
        """The principal of a request, which has this permission. Raises `Unauthenticated`, `Forbidden`, `RateLimited`,
        `StoreError`, and the errors of `check_connection`."""
        principal = await self.principal(connection)
        if not principal.may(permission):
            problem = f"a token of the role {principal.role.value!r} may not {permission.value}"
            raise self.refused(Forbidden(problem, reason="role"), connection, principal)
        return principal

    async def principal(self, connection: HTTPConnection) -> Principal:
        """The principal of a request. Raises the errors of `admitted`."""
        self.check_connection(connection)
        if not self.authentication:
            self._requests.admit(LOCAL.token_id, self._clock())
            known(connection.scope)
            return LOCAL
        token = self._shown(connection)
        found = self._tokens.remembered(token) or await self._tokens.ask(token)
        if found is None:
            raise self.unknown(Unauthenticated("unknown_token"), connection, who=_beginning(token))
        self._requests.admit(found.id, self._clock())
        known(connection.scope)
        return Principal(found.id, found.name, found.role, found.project)

    def _shown(self, connection: HTTPConnection) -> str:
        """The bearer token of a request. Raises `Unauthenticated` if there is no well-formed one."""
        headers = connection.headers.getlist("authorization")
        if not headers:
            raise self.refused(Unauthenticated("no_token"), connection)
        scheme, _, token = headers[0].partition(" ")
        token = token.strip()
        if len(headers) > 1 or scheme.lower() != "bearer" or not token or " " in token:
            raise self.refused(Unauthenticated("bad_header"), connection)
        return token

    def unknown(self, error: VoiceError, connection: HTTPConnection, *, who: str = "") -> VoiceError:
        """Record a bad token or ticket in evidence, and return the error to raise: `error`, or `RateLimited` if the client has
        sent too many of them. A good token is never limited by that."""
        refused = self.refused(error, connection, who=who)
        try:
            self._unknown.admit(self.client(connection), self._clock())
        except RateLimited as limited:
            return limited
        return refused

    # --- the client's address and name for this server -------------------------------------------------------------

    def client(self, connection: HTTPConnection) -> str:
        """The client of a connection (`client_of`), behind the trusted proxies. Raises `InvalidRequest` if their headers can't
        be read."""
        return client_of(client_address(_address(connection), connection.headers, self._proxies))

    def securely(self, connection: HTTPConnection) -> bool:
        """Whether the client of a connection used TLS, to this server or to a trusted proxy. Raises the errors of `client`."""
        return asked_securely(_address(connection), connection.url.scheme, connection.headers, self._proxies)

    def check_connection(self, connection: HTTPConnection) -> None:
        """Check a request by its origin, host name and client address alone. Raises `Forbidden`, `Unauthenticated`, and
        `InvalidRequest` as `client` does.

        `admitted` includes this check; routes that are open to everybody, and the stream, only have this check.
        """
        try:
            self.client(connection)
            secure = self.securely(connection)
        except InvalidRequest as error:
            raise self.refused(error, connection, reason="forwarded", detail=error.field or "") from None
        self._check_host(connection)
        self._check_origin(connection, secure=secure)
        scope = connection.scope
        if holds_secret(scope["path"]) or holds_secret(
            unquote_to_bytes(scope["query_string"]).decode("ascii", "replace")
        ):
            raise self.refused(Unauthenticated("token_in_url"), connection)

    def _check_host(self, connection: HTTPConnection) -> None:
        headers = connection.headers.getlist("host")
        host = headers[0] if len(headers) == 1 else ""
        if not self.authentication:
            address = _address(connection)
            through = any(name in connection.headers for name in FORWARDED)
            if through or (address is not None and _is_address(address) and not is_loopback(address)):
                problem = (
                    "this server has no authentication: it takes no requests from other machines or through a proxy"
                )
                raise self.refused(Forbidden(problem, reason="proxied"), connection)
            if not is_loopback_name(host):
                problem = "this server has no authentication: it answers to localhost, 127.0.0.1 and [::1] only"
                raise self.refused(Forbidden(problem, reason="host"), connection, detail=host)
        elif self._hosts is not None:
            named = host_of(host)
            if named is None or named[0] not in self._hosts:
                raise self.refused(
                    Forbidden("this server does not answer to that name", reason="host"), connection, detail=host
                )

    def _check_origin(self, connection: HTTPConnection, *, secure: bool) -> None:
        """Refuse a page of another site that would change something or open a stream. It may send other requests, since
        browsers do not let it read the replies."""
        origins = connection.headers.getlist("origin")
        if not origins or (connection.scope["type"] == "http" and connection.scope["method"] in SAFE_METHODS):
            return
        origin = read_origin(origins[0]) if len(origins) == 1 else None
        host = connection.headers.get("host", "")
        if origin is None or (origin not in self._origins and not is_same_site(origin, host, secure=secure)):
            problem = "pages of that origin may not use this server; --origin allows one"
            raise self.refused(Forbidden(problem, reason="origin"), connection, detail=" ".join(origins))

    # --- the project and its sessions ------------------------------------------------------------------------------

    def project(self, principal: Principal, project_id: str | None, connection: HTTPConnection) -> str | None:
        """The project in which the principal reads or creates, given the requested one, if any; None for all. Raises
        `Forbidden`."""
        if project_id is None:
            return principal.project
        if not principal.sees(project_id):
            problem = "the token is for another project"
            raise self.refused(Forbidden(problem, reason="project"), connection, principal, detail=project_id)
        return project_id

    def session(
        self, principal: Principal, session_id: str, found: VoiceSession | None, connection: HTTPConnection
    ) -> VoiceSession:
        """The requested session, as `found`, if the principal may see it. Raises `SessionNotFound`."""
        if found is None:
            raise SessionNotFound(session_id)
        if not principal.sees(found.project_id):
            raise self.refused(
                SessionNotFound(session_id), connection, principal, reason="project", session_id=found.session_id
            )
        return found

    # --- refusals --------------------------------------------------------------------------------------------------

    def refused(
        self,
        error: VoiceError,
        connection: HTTPConnection,
        principal: Principal | None = None,
        *,
        reason: str | None = None,
        who: str = "",
        session_id: str = "",
        detail: str = "",
    ) -> VoiceError:
        """Record a refusal in evidence, and return the error to raise.

        `reason` defaults to that of an `Unauthenticated`, `Forbidden` or `InvalidTicket`. `who` is the id of a token or the
        beginning of a hash, never a secret.
        """
        if reason is None:
            reason = error.reason if isinstance(error, Unauthenticated | Forbidden | InvalidTicket) else "refused"
        scope = connection.scope
        try:
            client = self.client(connection)
        except InvalidRequest:
            client = client_of(_address(connection))
        self.refusals.add(
            Refusal(
                reason=reason,
                client=client,
                method=scope.get("method", "WEBSOCKET"),
                route=getattr(scope.get("route"), "path", None) or redacted(scope["path"]),
                who=who if principal is None else principal.token_id,
                session_id=session_id,
                detail=detail,
            )
        )
        return error


def access_of(connection: HTTPConnection) -> AccessControl:
    """The access rules of the app of this request."""
    access: AccessControl = connection.app.state.access
    return access


async def checked(connection: HTTPConnection) -> None:
    """The dependency of a route that is open to everybody, and of the stream, whose clients authenticate by tickets."""
    # A coroutine, so that it runs on the loop: FastAPI has threads for functions.
    access_of(connection).check_connection(connection)


def requires(permission: Permission) -> Callable[..., Awaitable[Principal]]:
    """The dependency of a route that needs this permission; its value is the `Principal`."""

    async def principal(request: Request, documented: Annotated[object, Depends(_BEARER)]) -> Principal:
        del documented
        return await access_of(request).admitted(request, permission)

    return principal


_BEARER: Final = HTTPBearer(
    auto_error=False, description="An access token: `agentos-voice token create NAME --role ROLE`."
)


def _address(connection: HTTPConnection) -> str | None:
    return None if connection.client is None else connection.client.host


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()


def _beginning(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()[:HASH_DIGITS]}"
