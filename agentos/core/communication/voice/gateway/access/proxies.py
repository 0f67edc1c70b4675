"""The client behind a proxy: its address and its scheme, as trusted proxies tell them. Rules without I/O.

A proxy appends its client's address at the right of the header (`X-Forwarded-For`, or `Forwarded`, RFC 7239); anybody may have
written the entries further left. So entries are read from the right, as long as a trusted proxy wrote them; entries that a
client wrote about itself are never reached.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final

from starlette.datastructures import Headers

from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

FORWARDED: Final = "Forwarded"
FORWARDED_FOR: Final = "X-Forwarded-For"
FORWARDED_PROTO: Final = "X-Forwarded-Proto"
SECURE: Final = frozenset({"https", "wss"})

_SCHEMES: Final = SECURE | {"http", "ws"}

HIDDEN: Final = "unknown"
_PORT = re.compile(r":[0-9]{1,5}\Z")
_HIDDEN = re.compile(r"unknown|_[A-Za-z0-9._-]+", re.IGNORECASE)  # RFC 7239, 6.2 and 6.3: a client that the proxy hides
_PAIR = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]++)=("(?:[^"\\]|\\.)*+"|[^\s",;]*+)([ \t;]*+)(,|\Z)?""")
_NOTHING = re.compile(r"[ \t,]*")  # lists may have empty elements
_ESCAPED = re.compile(r"\\(.)")


def client_address(peer: str | None, headers: Headers, trusted: Sequence[Network]) -> str | None:
    """The address of the client of a connection from `peer`, the address at the socket.

    The client is `peer` itself, unless `peer` is a `trusted` proxy that names another address. Raises `InvalidRequest`, naming
    the header, if a trusted proxy's header can't be read, or if the two headers name different clients: then the client may
    have written one of them.
    """
    at_the_socket = _address(peer or "")
    if at_the_socket is None or not _is_among(at_the_socket, trusted):
        return peer
    named = [
        _nearest(at_the_socket, entries, header, trusted)[0]
        for header, read in ((FORWARDED, _forwarded), (FORWARDED_FOR, _listed))
        if (entries := list(read(headers.getlist(header))))
    ]
    if len(set(named)) > 1:
        problem = f"{FORWARDED} and {FORWARDED_FOR} name different clients: have the proxy remove the one that it does not set"
        raise InvalidRequest(problem, field=FORWARDED)
    return str(named[0]) if named else peer


def asked_securely(peer: str | None, scheme: str, headers: Headers, trusted: Sequence[Network]) -> bool:
    """Whether the client of a connection from `peer`, which reached this server by `scheme`, used TLS (https or wss).

    A `trusted` peer may name its client's scheme. Raises `InvalidRequest`, naming the header, if the header can't be read, or
    names two schemes.
    """
    at_the_socket = _address(peer or "")
    if at_the_socket is None or not _is_among(at_the_socket, trusted):
        return scheme in SECURE
    said = {text.lower() for text in _listed(headers.getlist(FORWARDED_PROTO))}
    if not said <= _SCHEMES:
        raise _malformed(FORWARDED_PROTO)
    elements = list(_elements(headers.getlist(FORWARDED)))
    if elements:
        names = [element.get("for", HIDDEN) for element in elements]
        nearest = elements[_nearest(at_the_socket, names, FORWARDED, trusted)[1]]
        proto = nearest.get("proto", "").lower()
        if proto and proto not in _SCHEMES:
            raise _malformed(FORWARDED)
        said |= {proto} - {""}
    if len({one in SECURE for one in said}) > 1:
        problem = (
            f"{FORWARDED} and {FORWARDED_PROTO} name two schemes: have the proxy set one of them, and remove the other"
        )
        raise InvalidRequest(problem, field=FORWARDED_PROTO)
    return not said.isdisjoint(SECURE) if said else scheme in SECURE


def is_proxy(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Whether this address at the socket is a trusted proxy's, behind which there may be many clients."""
    address = _address(peer or "")
    return address is not None and _is_among(address, trusted)


def _nearest(hop: Address, entries: Sequence[str], header: str, trusted: Sequence[Network]) -> tuple[Address, int]:
    """The nearest hop that is not trusted, and the place of its entry. If all hops are trusted, or the next is hidden, the
    farthest hop."""
    for place in reversed(range(len(entries))):
        entry = entries[place]
        if _HIDDEN.fullmatch(entry):
            return hop, place
        found = _address(entry) or _address(_PORT.sub("", entry))
        if found is None:
            raise _malformed(header)
        hop = found
        if not _is_among(hop, trusted):
            return hop, place
    return hop, 0


def _listed(lines: Sequence[str]) -> Iterator[str]:
    return (entry.strip() for line in lines for entry in line.split(",") if entry.strip())


def _forwarded(lines: Sequence[str]) -> Iterator[str]:
    """The value of `for=` in each element; "unknown" if an element has none."""
    return (element.get("for", HIDDEN) for element in _elements(lines))


def _elements(lines: Sequence[str]) -> Iterator[dict[str, str]]:
    for line in lines:
        elements: list[dict[str, str]] = []
        at = 0
        while (at := _NOTHING.match(line, at).end()) < len(line):  # type: ignore[union-attr]  # always matches
            elements.append({})
            ended = False
            while not ended:
                pair = _PAIR.match(line, at)
                if pair is None or pair[1].lower() in elements[-1] or (pair[4] is None and ";" not in pair[3]):
                    raise _malformed(FORWARDED)
                elements[-1][pair[1].lower()] = _ESCAPED.sub(r"\1", pair[2][1:-1]) if pair[2][:1] == '"' else pair[2]
                at, ended = pair.end(), pair[4] is not None
        yield from elements


def _address(text: str) -> Address | None:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped


def _is_among(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _malformed(header: str) -> InvalidRequest:
    return InvalidRequest(f"the {header} header that came through a trusted proxy can't be read", field=header)
