"""Where a server may be reached from, and under which names."""

import pytest

from agentos.core.communication.voice.errors import InvalidRequest, UnsafeExposure
from agentos.core.communication.voice.gateway.access.exposure import (
    Origin,
    allowed_origin,
    check_exposure,
    host_of,
    is_loopback_name,
    is_same_site,
    read_origin,
)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_on_loopback_a_server_may_ask_nobody_who_they_are(host: str) -> None:
    check_exposure(host, auth=False)
    check_exposure(host, auth=True)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7", "localhost", "voice.example", "127.1"]
)
def test_anywhere_else_it_does_not_start_and_says_why(host: str) -> None:
    check_exposure(host, auth=True)
    with pytest.raises(UnsafeExposure, match="without authentication nothing is served on") as raised:
        check_exposure(host, auth=False)
    assert raised.value.host == host


@pytest.mark.parametrize(
    ("header", "origin"),
    [
        ("https://app.example", Origin("https", "app.example", 443)),
        ("https://APP.example:8443", Origin("https", "app.example", 8443)),
        ("http://127.0.0.1:5173", Origin("http", "127.0.0.1", 5173)),
        ("http://[::1]:80", Origin("http", "::1", 80)),
        ("null", None),
        ("*", None),
        ("", None),
        ("https://", None),
        ("https://app.example/", None),
        ("https://app.example/page", None),
        ("https://user@app.example", None),
        ("https://app.example:x", None),
        ("https://[::1", None),
        ("file://app.example", None),
        ("app.example", None),
        ("https://app.example https://evil.example", None),
    ],
)
def test_an_origin_is_a_scheme_a_host_and_a_port(header: str, origin: Origin | None) -> None:
    assert read_origin(header) == origin
    if origin is not None:
        assert allowed_origin(header) == origin
    else:
        with pytest.raises(InvalidRequest, match="an allowed origin is like"):
            allowed_origin(header)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("Voice.example", ("voice.example", None)),
        ("voice.example.:80", ("voice.example", 80)),
        ("[::1]:8000", ("::1", 8000)),
        ("", None),
        (":80", None),
        ("a/b", None),
        ("user@localhost", None),
        ("localhost:99999", None),
        ("[::1", None),
        ("localhost?x", None),
    ],
)
def test_a_host_header_is_a_name_and_a_port(header: str, found: tuple[str, int | None] | None) -> None:
    assert host_of(header) == found


@pytest.mark.parametrize(
    ("origin", "scheme", "host", "same"),
    [
        ("http://127.0.0.1:8000", "http", "127.0.0.1:8000", True),
        ("http://127.0.0.1:8000", "ws", "127.0.0.1:8000", True),
        ("http://voice.example", "http", "voice.example", True),
        ("https://voice.example", "http", "voice.example", True),  # a proxy ended TLS
        ("https://voice.example", "https", "voice.example:443", True),
        ("http://voice.example", "https", "voice.example", False),
        ("http://voice.example", "wss", "voice.example:80", False),
        ("http://127.0.0.1:5173", "http", "127.0.0.1:8000", False),
        ("http://localhost:8000", "http", "127.0.0.1:8000", False),
        ("http://evil.example", "http", "voice.example", False),
        ("http://voice.example.evil.example", "http", "voice.example", False),
        ("http://voice.example", "http", "", False),
    ],
)
def test_a_page_is_of_the_same_site_when_the_server_was_asked_under_its_name(
    origin: str, scheme: str, host: str, *, same: bool
) -> None:
    read = read_origin(origin)
    assert read is not None
    assert is_same_site(read, host, secure=scheme in {"https", "wss"}) is same


@pytest.mark.parametrize("header", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]", "127.0.0.2"])
def test_a_name_of_this_machine_itself_is_known(header: str) -> None:
    assert is_loopback_name(header)


@pytest.mark.parametrize(
    "header",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "192.0.2.7", "2130706433"],
)
def test_a_name_that_somebody_could_point_here_is_none(header: str) -> None:
    assert not is_loopback_name(header)
