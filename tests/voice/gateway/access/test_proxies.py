"""Who the client is behind proxies: nobody but a trusted one is believed, and nothing that a client wrote is reached."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.gateway.access.proxies import asked_securely, client_address

TRUSTED = tuple(ip_network(text) for text in ("10.0.0.0/8", "2001:db8:f::/48"))
PROXY, CLIENT = "10.0.0.1", "192.0.2.7"
TOO_LONG = 60_000  # characters: as much as servers take of a header


def client(peer: str | None, *headers: tuple[str, str]) -> str | None:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return client_address(peer, Headers(raw=raw), TRUSTED)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"198.51.100.1, {CLIENT}", CLIENT),  # what the client claims
        (f"no address at all, {CLIENT}", CLIENT),
        (f"{CLIENT}, 10.2.0.1, 10.1.0.1:80", CLIENT),
        (f" ,, {CLIENT}\t,", CLIENT),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:4711, 2001:db8:f::1", "2001:db8::7"),
        (f"::ffff:{CLIENT}", CLIENT),
        ("10.3.0.1, 10.2.0.1", "10.3.0.1"),  # all are trusted: the farthest
        ("unknown", PROXY),
        ("Unknown", PROXY),
        ("unknown, 10.2.0.1", "10.2.0.1"),
        ("", PROXY),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(value: str, expected: str) -> None:
    assert client(PROXY, ("X-Forwarded-For", value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"for={CLIENT}", CLIENT),
        (f'For="{CLIENT}:4711";proto=https;by=10.0.0.1', CLIENT),
        (f"for=198.51.100.1, for={CLIENT};host=voice.example", CLIENT),
        (f"for={CLIENT}, for=10.2.0.1;by=_edge", CLIENT),
        ('for="[2001:db8::7]:4711"', "2001:db8::7"),
        ('for="192.0.2\\.7", for=10.2.0.1;by="a, for=6.6.6.6"', CLIENT),
        (f", ,for={CLIENT} ;,", CLIENT),
        (f"proto=https; ;for={CLIENT}", CLIENT),
        ("for=unknown", PROXY),
        ("for=UNKNOWN", PROXY),
        ("for=_hidden, for=10.2.0.1", "10.2.0.1"),
        ("by=10.0.0.1;proto=https", PROXY),
        ("", PROXY),
    ],
)
def test_forwarded_is_read_from_the_right(value: str, expected: str) -> None:
    assert client(PROXY, ("Forwarded", value)) == expected


def test_the_lines_of_a_header_go_on_from_each_other() -> None:
    assert client(PROXY, ("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", CLIENT)) == CLIENT
    assert client(PROXY, ("Forwarded", f"for={CLIENT}"), ("Forwarded", "for=10.9.0.1")) == CLIENT


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize("peer", [CLIENT, "2001:db8::7", "testclient", None])
def test_nobody_else_is_believed(peer: str | None, header: str) -> None:
    assert client(peer, (header, "for=10.0.0.1" if header == "Forwarded" else "10.0.0.1")) == peer


def test_a_trusted_proxy_is_known_by_every_form_of_its_address() -> None:
    for peer in ("::ffff:10.0.0.1", "2001:db8:f::1", "2001:db8:f::1%eth0"):
        assert client(peer, ("X-Forwarded-For", CLIENT)) == CLIENT


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Forwarded-For", "no address"),
        ("X-Forwarded-For", "no address, 10.2.0.1"),
        ("X-Forwarded-For", "256.0.0.1"),
        ("X-Forwarded-For", f"{CLIENT};"),
        ("X-Forwarded-For", "\xff"),
        ("X-Forwarded-For", f'"{CLIENT}"'),
        ("Forwarded", CLIENT),
        ("Forwarded", "for="),
        ("Forwarded", f"for={CLIENT};for=198.51.100.1"),
        ("Forwarded", f"for=198.51.100.1;For={CLIENT}"),
        ("Forwarded", f'for="{CLIENT}'),
        ("Forwarded", f'for="x, for={CLIENT}'),  # a client's open quote, which would swallow what the proxy wrote
        ("Forwarded", 'for="x, for="[2001:db8::7]"'),
        ("Forwarded", f'for="x\\, for="{CLIENT}"'),
        ("Forwarded", f"for = {CLIENT}"),
        ("Forwarded", f"for=198.51.100.1 for={CLIENT}"),
    ],
)
def test_what_can_not_be_read_is_refused(header: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client(PROXY, (header, value))
    assert refused.value.field == header
    assert client(CLIENT, (header, value)) == CLIENT  # of nobody's else a word is read


def test_a_client_s_own_header_beside_the_proxy_s_is_refused_unless_both_say_the_same() -> None:
    with pytest.raises(InvalidRequest, match="different clients"):
        client(PROXY, ("X-Forwarded-For", CLIENT), ("Forwarded", "for=198.51.100.1"))
    assert client(PROXY, ("X-Forwarded-For", CLIENT), ("Forwarded", f"for={CLIENT}")) == CLIENT


LINES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
PIECES = st.lists(st.sampled_from(['"', "\\", ",", ";", "for=", "by=", "6.6.6.6", " ", "10.0.0.9", "x"]), max_size=12)


@given(written=LINES | PIECES.map("".join), proxy=st.sampled_from([CLIENT, "[2001:db8::7]"]))
def test_whatever_a_client_writes_it_is_itself_or_is_refused(written: str, proxy: str) -> None:
    itself = proxy.strip("[]")
    assert client(PROXY, ("X-Forwarded-For", f"{written}, {proxy}")) == itself
    for value in (f'{written}, for="{proxy}"', f'{written}, for="{proxy}:80";by="[2001:db8:f::1]"'):
        for lines in ([value], value.split(", ", 1) if ", " not in written else [value]):
            try:
                found = client(PROXY, *(("Forwarded", line) for line in lines))
            except InvalidRequest:
                continue
            assert found == itself


@pytest.mark.parametrize("piece", [" ", ",", ";", "for=1;", "for=10.0.0.1,", '"', "\\", "a", "for=1 ;"])
@pytest.mark.parametrize("start", ["", "for=1", 'for="', 'for="\\'])
def test_a_long_header_takes_steps_in_its_length(piece: str, start: str) -> None:
    """With a pattern that goes back and forth one of these would take minutes, and this test would be ended by its limit."""
    value = start + piece * (TOO_LONG // len(piece)) + "x"
    with pytest.raises(InvalidRequest):
        client(PROXY, ("Forwarded", value))


# --- by which scheme -------------------------------------------------------------------------------------------------


def securely(peer: str | None, *headers: tuple[str, str], scheme: str = "http") -> bool:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return asked_securely(peer, scheme, Headers(raw=raw), TRUSTED)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([("X-Forwarded-Proto", "https")], True),
        ([("X-Forwarded-Proto", "HTTPS")], True),
        ([("X-Forwarded-Proto", "wss, https")], True),
        ([("X-Forwarded-Proto", "http")], False),
        ([("X-Forwarded-Proto", "")], False),
        ([("Forwarded", f"for={CLIENT};proto=https")], True),
        ([("Forwarded", f'for={CLIENT};proto="HTTPS"')], True),
        ([("Forwarded", f"for={CLIENT};proto=http")], False),
        ([("Forwarded", f"for={CLIENT}")], False),
        (
            [("Forwarded", f"for={CLIENT};proto=https, for=10.2.0.1;proto=http")],
            True,
        ),  # of the outermost that is trusted
        ([("Forwarded", f"for=6.6.6.6;proto=https, for={CLIENT};proto=http")], False),  # what the client claims
        ([("Forwarded", "for=10.3.0.1;proto=https, for=10.2.0.1;proto=http")], True),
        ([("Forwarded", "proto=https")], True),
        ([("Forwarded", f"for={CLIENT};proto=https"), ("X-Forwarded-Proto", "https")], True),
    ],
)
def test_a_trusted_proxy_says_by_which_scheme_it_was_asked(headers: list[tuple[str, str]], *, expected: bool) -> None:
    assert securely(PROXY, *headers) is expected
    assert securely(CLIENT, *headers) is False  # nobody else is believed
    assert securely(CLIENT, *headers, scheme="https") is True
    assert securely(None, *headers, scheme="wss") is True


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ([("X-Forwarded-Proto", "gopher")], "X-Forwarded-Proto"),
        ([("X-Forwarded-Proto", "https, http")], "X-Forwarded-Proto"),
        ([("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")], "X-Forwarded-Proto"),
        ([("Forwarded", f"for={CLIENT};proto=gopher")], "Forwarded"),
        ([("Forwarded", f"for={CLIENT};proto=http"), ("X-Forwarded-Proto", "https")], "X-Forwarded-Proto"),
    ],
)
def test_a_scheme_that_can_not_be_read_or_two_of_them_are_refused(headers: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        securely(PROXY, *headers)
    assert refused.value.field == field
    assert securely(CLIENT, *headers) is False
