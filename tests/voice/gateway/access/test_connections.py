"""How many connections are open at once: a stranger gives way, who is known does not, and descriptors stay in reserve."""

import random
from ipaddress import ip_network

import pytest

from agentos.core.communication.voice.errors import Overloaded, RateLimited
from agentos.core.communication.voice.gateway.access import connections as module
from agentos.core.communication.voice.gateway.access.connections import GUEST, Connections, Guest, known
from agentos.core.communication.voice.open_files import calls_below, calls_for, connections_below

LOW = 3  # a descriptor far from every limit


def ended(guests: list[Guest]) -> list[int]:
    """Has each note its place here when it is ended."""
    found: list[int] = []
    for place, guest in enumerate(guests):
        guest.end = lambda place=place: found.append(place)  # type: ignore[misc]
    return found


def test_one_more_stranger_takes_the_place_of_the_oldest() -> None:
    connections = Connections(total=10, per_client=10, strangers=3)
    guests = [connections.admit(f"10.0.0.{number}", LOW) for number in range(3)]
    gone = ended(guests)
    guests[0].known()
    connections.admit("10.0.0.8", LOW)
    assert (gone, len(connections), connections.strangers) == ([], 4, 3)
    connections.admit("10.0.0.9", LOW)
    assert (gone, len(connections), connections.strangers) == ([1], 4, 3)


def test_a_client_with_too_many_loses_its_own_strangers_and_then_is_refused() -> None:
    connections = Connections(total=10, per_client=2, strangers=10)
    other = connections.admit("10.0.0.2", LOW)
    guests = [connections.admit("10.0.0.1", LOW) for _ in range(2)]
    gone = ended([other, *guests])
    guests[1].known()
    third = connections.admit("10.0.0.1", LOW)
    assert gone == [1]
    third.known()
    with pytest.raises(RateLimited, match="2 connections are open, as many as a client may have"):
        connections.admit("10.0.0.1", LOW)
    connections.admit("10.0.0.3", LOW)
    third.left()
    connections.admit("10.0.0.1", LOW)


def test_a_trusted_proxy_may_have_as_many_as_there_are() -> None:
    connections = Connections(total=3, per_client=1, strangers=3, proxies=(ip_network("10.9.0.0/24"),))
    for _ in range(3):
        connections.admit("10.9.0.1", LOW).known()
    assert len(connections) == 3


def test_in_all_there_is_a_bound_and_the_known_stay() -> None:
    connections = Connections(total=2, per_client=2, strangers=2)
    guests = [connections.admit(f"10.0.0.{number}", LOW) for number in range(2)]
    gone = ended(guests)
    guests[0].known()
    connections.admit("10.0.0.3", LOW).known()
    assert gone == [1]
    with pytest.raises(Overloaded, match="2 connections are open"):
        connections.admit("10.0.0.4", LOW)
    assert connections.refused == 1


def test_before_the_descriptors_run_out_nobody_new_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_files_limit", lambda: 1024)
    connections = Connections(total=10_000, per_client=10_000, strangers=10_000)
    connections.admit("10.0.0.1", 895).known()
    with pytest.raises(Overloaded, match="no more files can be opened"):
        connections.admit("10.0.0.1", 896)


@pytest.mark.parametrize("limit", [64, 256, 1024, 20_000, 1_048_576])
def test_the_reserve_is_there_at_every_limit(limit: int) -> None:
    assert 0 < connections_below(limit) < calls_below(limit) < limit
    assert 2 * calls_for(limit) < connections_below(limit)


def test_what_is_counted_is_what_is_there() -> None:
    rng = random.Random(7)
    connections = Connections(total=12, per_client=5, strangers=6)
    there: dict[Guest, bool] = {}  # whether it is known

    for _ in range(5_000):
        match rng.randrange(3):
            case 0:
                try:
                    guest = connections.admit(f"10.0.0.{rng.randrange(4)}", LOW)
                except (Overloaded, RateLimited):
                    continue
                guest.end = lambda guest=guest: there.pop(guest)  # type: ignore[misc]
                there[guest] = False
            case 1 if there:
                guest = rng.choice([*there])
                guest.known()
                there[guest] = True
            case 2 if there:
                guest = rng.choice([*there])
                del there[guest]
                guest.left()
                guest.left()
                guest.known()
        assert len(connections) == len(there) <= 12
        assert connections.strangers == list(there.values()).count(False) <= 6
        clients = [guest.client for guest in there]
        assert all(clients.count(client) <= 5 for client in clients)
    assert connections.displaced
    assert connections.refused


def test_who_is_served_by_another_server_is_nobodys_guest() -> None:
    known({"type": "http"})
    known({"type": "http", "state": {}})
    connections = Connections(total=2, per_client=2, strangers=2)
    known({"type": "http", "state": {GUEST: connections.admit(None, LOW)}})
    assert connections.strangers == 0
