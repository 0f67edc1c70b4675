"""Access tokens: told once, stored as a hash, for a role, and good until they expire or are revoked."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.running.request import MAX_PROJECT_ID
from agentos.core.communication.voice.storage import tokens as module
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.tokens import PROJECT_LIMIT, Role, TokenStore, revocations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "voice.db"


@pytest.fixture
def tokens(path: Path) -> Iterator[TokenStore]:
    with open_store(path, busy_timeout_seconds=5.0) as store:
        yield TokenStore(store)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_000_000]
    monkeypatch.setattr(module, "utc_now_ms", lambda: now[0])
    return now


def test_a_token_is_valid_and_a_changed_one_is_not(tokens: TokenStore) -> None:
    token = tokens.create("ops")
    assert tokens.valid(token)
    assert not tokens.valid(token[:-1] + ("A" if token[-1] != "A" else "B"))
    assert not tokens.valid(token + "A")


@pytest.mark.parametrize("other", ["", "avt_", "avt_x", "Bearer", None, 7, b"avt_x", "avt_\ud800", "avt_ü", ["avt_"]])
def test_what_is_no_token_is_just_not_valid(tokens: TokenStore, other: object) -> None:
    tokens.create("ops")
    assert tokens.valid(other) is False


def test_tokens_are_long_and_never_the_same(tokens: TokenStore) -> None:
    made = {tokens.create("ops") for _ in range(5)}
    assert len(made) == 5
    assert all(token.startswith("avt_") and len(token) == len("avt_") + 43 for token in made)


def test_only_the_hash_is_on_the_disk(tokens: TokenStore, path: Path) -> None:
    token = tokens.create("ops")
    disk = b"".join(item.read_bytes() for item in path.parent.iterdir())
    assert token.encode() not in disk
    assert token.removeprefix("avt_").encode() not in disk
    assert hashlib.sha256(token.encode()).hexdigest().encode() in disk


def test_a_token_expires(tokens: TokenStore, clock: list[int]) -> None:
    token = tokens.create("ops", lifetime_seconds=1.5)
    [listed] = tokens.list()
    assert (listed.created_at_ms, listed.expires_at_ms) == (1_000_000, 1_001_500)
    clock[0] += 1_499
    assert tokens.valid(token)
    clock[0] += 1
    assert not tokens.valid(token)


def test_a_token_without_a_lifetime_does_not_expire(tokens: TokenStore, clock: list[int]) -> None:
    token = tokens.create("ops")
    clock[0] += 10**12
    assert tokens.valid(token)


def test_a_revoked_token_is_not_valid_and_others_stay(tokens: TokenStore, clock: list[int]) -> None:
    first = tokens.create("first")
    clock[0] += 1
    second = tokens.create("second")
    listed = tokens.list()
    assert [(item.name, item.revoked_at_ms) for item in listed] == [("first", None), ("second", None)]
    assert tokens.revoke(listed[0].id)
    assert not tokens.revoke(listed[0].id)
    assert not tokens.revoke("tok-unknown")
    assert not tokens.valid(first)
    assert tokens.valid(second)
    assert [item.revoked_at_ms for item in tokens.list()] == [1_000_001, None]


def test_tokens_survive_reopening_and_a_changed_hash_does_not_help(path: Path) -> None:
    with open_store(path, busy_timeout_seconds=5.0) as store:
        token = TokenStore(store).create("ops")
    with open_store(path, busy_timeout_seconds=5.0) as store:
        assert TokenStore(store).valid(token)
    database = sqlite3.connect(path)
    database.execute("UPDATE tokens SET hash = upper(hash)")
    database.commit()
    database.close()
    with open_store(path, busy_timeout_seconds=5.0) as store:
        assert not TokenStore(store).valid(token)


@pytest.mark.parametrize("name", ["", "  ", "a" * 201, "a\nb", 7, None])
def test_a_bad_name_is_refused(tokens: TokenStore, name: object) -> None:
    with pytest.raises(ValueError, match="name"):
        tokens.create(name)  # type: ignore[arg-type]
    assert tokens.list() == []


@pytest.mark.parametrize("lifetime", [0, -1, float("nan"), float("inf"), 1e12, "1", True])
def test_a_bad_lifetime_is_refused(tokens: TokenStore, lifetime: object) -> None:
    with pytest.raises(ValueError, match="lifetime_seconds"):
        tokens.create("ops", lifetime)  # type: ignore[arg-type]
    assert tokens.list() == []


@pytest.mark.parametrize(
    ("role", "project"),
    [(Role.ADMIN, None), (Role.OPERATOR, None), (Role.AUDITOR, None), (Role.PROJECT, "shop")],
    ids=lambda value: getattr(value, "value", None),
)
def test_a_token_is_for_its_role_and_only_an_admins_counts_for_the_policy(
    tokens: TokenStore, role: Role, project: str | None
) -> None:
    token = tokens.create("someone", role=role, project=project)
    found = tokens.who(token)
    assert found is not None
    assert (found.name, found.role, found.project) == ("someone", role, project)
    assert [found] == tokens.list()
    assert tokens.valid(token) is (role is Role.ADMIN)


def test_nobody_has_a_token_that_expired_was_revoked_or_never_was(tokens: TokenStore, clock: list[int]) -> None:
    short = tokens.create("short", lifetime_seconds=1, role=Role.OPERATOR)
    kept, gone = (tokens.create(name, role=Role.AUDITOR) for name in ("kept", "gone"))
    ids = {token.name: token.id for token in tokens.list()}
    assert all(tokens.who(token) for token in (short, kept, gone))
    clock[0] += 1_000
    tokens.revoke(ids["gone"])
    assert [tokens.who(token) is not None for token in (short, kept, gone)] == [False, True, False]
    assert tokens.who("avt_" + "A" * 43) is None
    assert tokens.standing([*ids.values(), "tok-none"]) == {ids["kept"]}
    assert tokens.standing([]) == set()


def test_a_revocation_is_counted_by_this_process_through_any_store(tokens: TokenStore, path: Path) -> None:
    tokens.create("ops")
    before = revocations()
    with open_store(path, busy_timeout_seconds=5.0) as other:
        TokenStore(other).revoke(tokens.list()[0].id)
    assert revocations() == before + 1


@pytest.mark.parametrize(
    ("role", "project", "field"),
    [
        (Role.PROJECT, None, "project"),
        (Role.ADMIN, "shop", "project"),
        (Role.PROJECT, "", "project"),
        (Role.PROJECT, "a\nb", "project"),
        (Role.PROJECT, "a" * 201, "project"),
        (Role.PROJECT, 7, "project"),
        ("admin", None, "role"),
    ],
)
def test_a_role_without_its_project_or_a_project_without_its_role_is_refused(
    tokens: TokenStore, role: object, project: object, field: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        tokens.create("ops", role=role, project=project)  # type: ignore[arg-type]
    assert raised.value.field == field
    assert tokens.list() == []


def test_a_token_can_name_every_project_that_a_session_can() -> None:
    assert PROJECT_LIMIT == MAX_PROJECT_ID


def test_of_many_tokens_none_is_left_out(tokens: TokenStore) -> None:
    made = [tokens.create(f"number {number}") for number in range(5)]
    assert tokens.whose(made).keys() == set(made)
    ids = {token.id for token in tokens.list()}
    assert tokens.standing(ids) == ids
