"""Exposure: from which addresses, and under which names, a server may be reached. Rules without I/O.

A page of another site can make a browser send requests to this machine. With a name of its own that points here (DNS rebinding)
it could read the answers. So a server without authentication answers to its loopback names only, and no server takes an unsafe
request or a stream from a page of an origin that is not allowed.
"""

import ipaddress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from agentos.core.communication.voice.errors import InvalidRequest, UnsafeExposure

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Origin(NamedTuple):
    """The origin of a page (RFC 6454)."""

    scheme: str
    host: str
    port: int


def check_exposure(host: str, *, auth: bool) -> None:
    """Raise `UnsafeExposure` if a server on the address `host` would be open to other machines without authentication.

    A name is not resolved: only a loopback address itself counts as loopback.
    """
    if not auth and not is_loopback(host):
        raise UnsafeExposure(host)


def is_loopback(address: str) -> bool:
    """Whether this is an address, in brackets or not, that no other machine can reach."""
    try:
        found = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped.is_loopback
    return found.is_loopback


def read_origin(text: str) -> Origin | None:
    """The origin in an `Origin` header; None for "null" and if malformed."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or text != f"{parts.scheme}://{parts.netloc}":
        return None
    if parts.username is not None or parts.password is not None:
        return None
    return Origin(parts.scheme, parts.hostname, port if port is not None else DEFAULT_PORTS[parts.scheme])


def allowed_origin(text: str) -> Origin:
    """An origin that an operator allows. Raises `InvalidRequest` if malformed; "*" and "null" can't be allowed."""
    found = read_origin(text)
    if found is None:
        problem = f"an allowed origin is like 'https://app.example' or 'http://127.0.0.1:5173', got {text!a:.200}"
        raise InvalidRequest(problem, field="origins")
    return found


def host_of(header: str) -> tuple[str, int | None] | None:
    """The name (in lower case, an IPv6 address without brackets) and the port of a `Host` header; None if malformed."""
    try:
        parts = urlsplit(f"//{header}")
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.netloc != header or "@" in header:
        return None
    return parts.hostname.removesuffix("."), port


def is_same_site(origin: Origin, header: str, *, secure: bool) -> bool:
    """Whether a page of `origin` comes from the server that the `Host` header names, reached by TLS if `secure`.

    If a proxy ends TLS without telling the server, requests come by http and pages have https origins: that counts as the same
    site.
    """
    found = host_of(header)
    if found is None:
        return False
    name, port = found
    if secure and origin.scheme != "https":
        return False
    return origin.host.removesuffix(".") == name and origin.port == (
        DEFAULT_PORTS[origin.scheme] if port is None else port
    )


def is_loopback_name(header: str) -> bool:
    """Whether a `Host` header names this machine by a loopback name, which nobody can point elsewhere."""
    found = host_of(header)
    return found is not None and (found[0] == "localhost" or is_loopback(found[0]))
