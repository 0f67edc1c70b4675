from machines.evidence import link, record_id
from machines.heads import GENESIS, Head
from machines.ledger import Written, deciding_ids, links
from machines.verification import verify


def written(number: int | None, session: str = "a") -> Written:
    known = record_id(f"secret-{session}", number)
    return Written(known, session, f'{{"id":"{known}","request_id":"{session}"}}')


def test_links_follow_the_head_in_the_order_of_the_records() -> None:
    rows = list(links([written(1), written(1, "b"), written(2)], (), Head()))
    assert [row and row.seq for row in rows] == [1, 2, 3]
    assert verify(row for row in rows if row is not None).ok
    more = [*links([written(3)], (), Head(3, "ab"))]
    assert more[0] is not None
    assert (more[0].seq, more[0].previous, more[0].hash) == (4, "ab", link("ab", written(3).text))


def test_a_record_that_is_stored_is_not_stored_again() -> None:
    first = written(1)
    assert [*links([first], [first.id], Head())] == [None]
    rows = [*links([first, first, written(2)], (), Head())]
    assert [row and row.seq for row in rows] == [1, None, 2]


def test_nothing_comes_behind_a_final_record_of_the_same_session() -> None:
    rows = [*links([written(None), written(2), written(2, "b")], (), Head())]
    assert [row and row.id for row in rows] == [written(None).id, None, written(2, "b").id]
    assert [*links([written(2)], [written(None).id], Head())] == [None]


def test_what_decides_is_the_own_id_and_that_of_the_final_record() -> None:
    assert deciding_ids("ev-s-3") == ("ev-s-3", "ev-s-final")
    assert deciding_ids("ev-s-final") == ("ev-s-final",)
    assert deciding_ids("of another form") == ("of another form",)
    assert Head() == (0, GENESIS)
