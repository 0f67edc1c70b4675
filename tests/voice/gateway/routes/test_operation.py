"""Evidence, policy and the figures of the service over HTTP."""

import hashlib
import json
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentos.core.communication.voice.gateway import metrics
from agentos.core.communication.voice.gateway.routes import verification
from agentos.core.communication.voice.gateway.routes.verification import MOST_MISMATCHES, Verifications
from machines.cross_checks import Disagreements
from machines.heads import GENESIS, Head, HeadCheck, HeadState
from machines.verification import Examination, Verification
from tests.voice.gateway.conftest import Run, Running
from tests.voice.gateway.test_problems import is_problem

pytestmark = pytest.mark.anyio


async def test_an_outsider_can_check_the_evidence_of_a_session(run: Run) -> None:
    async with run() as running:
        session_id = await running.create(metadata={"caller": "Ada"})
        await running.service.dispatch_audio_chunk(session_id, bytes(32_000))
        assert (await running.client.post(f"/v1/sessions/{session_id}/stop")).status_code == 200
        links: list[dict[str, Any]] = []
        more, after = True, 0
        while more:
            path = f"/v1/sessions/{session_id}/evidence?limit=2&after={after}"
            page = (await running.client.get(path)).json()
            links += page["links"]
            after, more = page["last_seq"], page["more"]
        verified = (await running.client.get("/v1/evidence/verification")).json()
    assert [link["seq"] for link in links] == list(range(1, len(links) + 1))
    head = GENESIS
    for link in links:
        assert link["previous"] == head
        head = hashlib.sha256(f"{head}\n{link['text']}".encode()).hexdigest()
        assert link["hash"] == head
    assert verified == {
        "ok": True,
        "records": len(links),
        "head": head,
        "fault": None,
        "at_seq": None,
        "sealed": sum(len(link["contents"]) for link in links),
        "erased": 0,
        "heads": [],
        "mismatches": [],
        "mismatches_total": 0,
    }


async def test_the_content_of_a_record_is_that_which_was_sealed(run: Run) -> None:
    async with run() as running:
        session_id = await running.recorded(bytes(32_000))
        (link, *_) = (await running.client.get(f"/v1/sessions/{session_id}/evidence")).json()["links"]
    (content,) = link["contents"]
    chained, whole = json.loads(link["text"]), link["record"]
    seal = hashlib.sha256(bytes.fromhex(content["salt"]) + content["value"].encode()).hexdigest()
    assert chained["request_summary"].pop("sealed") == seal
    chained["request_summary"].update(json.loads(content["value"]))
    assert chained == whole


async def test_a_chain_is_held_against_heads_that_were_noted(run: Run, home: Path) -> None:
    async with run() as running:
        await running.recorded(bytes(32_000))
        first = (await running.client.get("/v1/evidence/verification")).json()
        noted = f"{first['records']}:{first['head']}"
        await running.recorded(bytes(32_000))
        other = f"1:{'ab' * 32}"
        answered = await running.client.get("/v1/evidence/verification", params={"head": [noted, other]})
        found = answered.json()
        assert (found["ok"], [head["state"] for head in found["heads"]]) == (False, ["holds", "differs"])
        assert found["heads"][0]["place"] == first["records"]
        found = (await running.client.get("/v1/evidence/verification", params={"head": noted})).json()
        assert found["ok"]
        with closing(sqlite3.connect(home / "voice.db")) as database:
            database.execute("DELETE FROM evidence WHERE seq >= ?", [first["records"]])
            database.execute("DELETE FROM evidence_content WHERE seq >= ?", [first["records"]])
            database.commit()
        found = (await running.client.get("/v1/evidence/verification", params={"head": noted})).json()
        assert (found["ok"], found["fault"], found["heads"][0]["state"]) == (False, None, "cut")


@pytest.mark.parametrize("head", ["", "7", f"7:{'A' * 64}", f"0:{'a' * 64}", f"{2**63}:{'a' * 64}"])
async def test_what_is_no_head_is_refused(run: Run, head: str) -> None:
    async with run() as running:
        answered = await running.client.get("/v1/evidence/verification", params={"head": head})
        assert is_problem(answered, 422, "invalid-request")


async def test_a_changed_record_is_found(run: Run, home: Path) -> None:
    async with run() as running:
        await running.recorded(bytes(32_000))
        with closing(sqlite3.connect(home / "voice.db")) as database:
            database.execute("UPDATE evidence SET record = replace(record, 'custom', 'slack') WHERE seq = 2")
            database.commit()
        found = (await running.client.get("/v1/evidence/verification")).json()
    assert (found["ok"], found["records"], found["at_seq"]) == (False, 1, 2)
    assert found["fault"] == "its text does not give its hash"
    assert (found["mismatches"], found["mismatches_total"]) == (None, None)


async def test_what_is_stored_beside_the_chain_is_held_against_it(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "MOST_MISMATCHES", 1)
    async with run() as running:
        calls = [await running.recorded(bytes(32_000)) for _ in range(2)]
        with closing(sqlite3.connect(home / "voice.db")) as database:
            database.execute(
                "UPDATE sessions SET snapshot = replace(snapshot, '\"drained\":true', '\"drained\":false')"
            )
            database.commit()
        found = (await running.client.get("/v1/evidence/verification")).json()
    assert (found["ok"], found["fault"], found["at_seq"]) == (False, None, None)
    text = "its result is stored with another drained than its final record has"
    assert found["mismatches"] == [{"kind": "result-differs", "about": min(calls), "text": text}]
    assert found["mismatches_total"] == 2


async def test_a_crowd_shares_a_verification() -> None:
    walks = []

    class Service:
        async def examine_evidence(self, heads: Collection[Head]) -> Examination:
            walks.append(None)
            await anyio.sleep(0.01)
            checks = tuple(HeadCheck(head, HeadState.HOLDS) for head in heads)
            return Examination(Verification(len(walks), "head", None, None), 0, 0, checks)

        async def evidence_disagreements(self, most: int) -> Disagreements:
            return Disagreements((), most)

    verifications, found = Verifications(), []

    async def ask(place: int = 0) -> None:
        heads = [Head(place, "ab" * 32)] if place else []
        said, beside = await verifications.next(Service(), heads)  # type: ignore[arg-type]
        assert beside == ((), MOST_MISMATCHES)
        assert [check.head for check in said.heads] == heads
        found.append(said.chain.records)

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.002)
        for place in range(20):
            group.start_soon(ask, place)
    assert sorted(found) == [1] + [2] * 20  # the second walk began when all of them had asked


async def test_the_policy_is_explained_and_nothing_is_made(run: Run) -> None:
    async with run() as running:
        token = running.service.token_store().create("somebody")
        risky = {"project_id": "demo", "metadata": {"sensitive_data": True, "international_call": True}}
        for asked, allowed, tier, needed, valid in (
            ({"project_id": "demo"}, True, "low", False, False),
            ({"project_id": "demo", "metadata": {"recording_enabled": True}}, True, "medium", False, False),
            (risky, False, "high", True, False),
            ({**risky, "admin_token": token}, True, "high", True, True),
            ({**risky, "admin_token": "avt_wrong"}, False, "high", True, False),
        ):
            said = (await running.client.post("/v1/policy/explanations", json=asked)).json()
            assert (said["allowed"], said["risk_level"]) == (allowed, tier)
            assert (said["admin_token_required"], said["admin_token_valid"]) == (needed, valid)
            assert said["session_id"] is None
            assert said["explanation"] == said["verdict"]["hint"]
        assert said["factors"] == ["sensitive_data", "international_call"]
        assert (await running.client.get("/v1/sessions")).json()["sessions"] == []
        assert (await running.client.get("/v1/evidence/verification")).json()["records"] == 0
        reply = await running.client.post("/v1/policy/explanations", json={"project_id": " "})
        assert is_problem(reply, 422, "invalid-request").field == "project_id"


async def test_the_verdict_of_a_session(run: Run) -> None:
    async with run() as running:
        session_id = await running.create(metadata={"recording_enabled": True})
        said = (await running.client.get(f"/v1/sessions/{session_id}/verdict")).json()
        assert (said["session_id"], said["allowed"], said["factors"]) == (session_id, True, ["recording_enabled"])


async def test_the_figures_are_those_of_the_service(run: Run) -> None:
    async with run() as running:
        await running.recorded(bytes(32_000))
        await running.create()
        found = (await running.client.get("/v1/statistics")).json()
        calls = found["calls"]
        assert calls["running"] == [{"state": "created", "provider": "local", "sessions": 1}]
        assert (calls["started"], calls["ended"], calls["accepted_frames"]) == (2, {"stopped": 1}, 50)
        assert calls["untranscribed_frames"] == {"no_engine": 50}
        assert calls["drains"]["count"] == 1
        assert found["store"]["lags"]["count"] == found["store"]["stored"] == 5
        assert found["media"]["frames"] == 50


async def test_a_picture_has_as_many_actors_as_were_asked_for(run: Run) -> None:
    async with run() as running:
        await running.create()
        picture = (await running.client.get("/v1/inspection?most_actors=2")).json()
        assert len(picture["system"]["actors"]) == 2
        assert picture["system"]["left_out"] >= 1
        assert picture["sessions"] == {"created": 1}
        for bad in ("most_actors=-1", "most_actors=1001", "actors=3"):
            is_problem(await running.client.get(f"/v1/inspection?{bad}"), 422, "invalid-request")


async def scraped(running: Running) -> dict[str, Any]:
    running.app.state.metrics = metrics.Metrics()  # what was read a moment ago is good for a second
    reply = await running.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(reply.text))
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    return {f"{one.name}{sorted(one.labels.items()) or ''}": one.value for one in samples}


async def test_metrics_say_what_the_service_says(run: Run) -> None:
    async with run() as running:
        before = await scraped(running)
        await running.recorded(bytes(32_000))
        await running.create()
        after = await scraped(running)
        prefix = "agentos_voice_"
        assert after[f"{prefix}sessions[('provider', 'local'), ('state', 'created')]"] == 1
        assert after[f"{prefix}sessions_started_total"] == 2
        assert after[f"{prefix}sessions_ended_total[('reason', 'stopped')]"] == 1
        assert after[f"{prefix}frames_processed_total"] == 50
        assert after[f"{prefix}frames_untranscribed_total[('reason', 'no_engine')]"] == 50
        assert (before[f"{prefix}session_drain_seconds_count"], after[f"{prefix}session_drain_seconds_count"]) == (0, 1)
        assert after[f"{prefix}evidence_lag_seconds_count"] == after[f"{prefix}evidence_stored_total"] == 5
        assert after[f"{prefix}evidence_lag_seconds_bucket[('le', '+Inf')]"] == 5
        assert after[f"{prefix}accepting_calls"] == 1
        for name in (
            "mailbox_age_seconds",
            "loop_lag_seconds[('quantile', '0.99')]",
            "actor_restarts_total",
            "stt_latency_seconds_count",
            "stt_wait_seconds",
            "port_silent[('port', 'media')]",
            "process_memory_bytes",
        ):
            assert f"{prefix}{name}" in after
        assert "process_open_fds" in after


async def test_scrapes_in_a_second_read_the_service_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run() as running:
        now, looks, inspect = [10_000], [], running.service.inspect
        monkeypatch.setattr(metrics, "monotonic_ms", lambda: now[0])
        monkeypatch.setattr(running.service, "inspect", lambda most: looks.append(most) or inspect(most))
        for _ in range(3):
            await running.client.get("/metrics")
        assert looks == [0]
        now[0] += 1000
        await running.client.get("/metrics")
        assert looks == [0, 0]


async def test_nothing_private_is_in_the_metrics(run: Run) -> None:
    async with run() as running:
        session_id = await running.create(project_id="a-secret-project", metadata={"from_number": "+4930123456"})
        text = (await running.client.get("/metrics")).text
        assert not [word for word in (session_id, "a-secret-project", "4930123456") if word in text]


async def test_health_and_readiness(run: Run) -> None:
    async with run() as running:
        for path in ("/healthz", "/readyz"):
            reply = await running.client.get(path)
            assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
