"""The OpenAPI document says what the API does; generated requests find nothing that it does not say."""

from typing import Any

import pytest
from pydantic import BaseModel

from agentos.core.communication.voice.gateway import problems, views
from agentos.core.communication.voice.gateway.problems import MEDIA_TYPE
from agentos.core.communication.voice.storage.tokens import Role
from tests.voice.gateway.conftest import Run

METHODS = {"get", "post", "head"}
OPEN = {"/healthz", "/readyz", "/v1/schemas/stream.json"}


def test_every_example_is_one() -> None:
    models = [
        model
        for module in (views, problems)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.__name__
    ]
    shown = 0
    for model in models:
        extra: Any = model.model_config.get("json_schema_extra", {})
        for example in extra.get("examples", ()):
            model.model_validate(example)
            shown += 1
        assert model.model_config.get("extra") == "forbid", model
        assert model.model_config.get("frozen") is True, model
        assert model.__doc__, model
    assert shown > 15


@pytest.mark.anyio
async def test_every_operation_is_documented(run: Run) -> None:
    async with run() as running:
        document = (await running.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 20
    assert {method for _, method, _ in operations} <= METHODS
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(ids)) == len(ids)
    for path, _, operation in operations:
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
        assert ("401" in operation["responses"]) is (path not in OPEN)
        assert ("security" in operation) is (path not in OPEN)
        for status, reply in operation["responses"].items():
            assert reply["description"]
            if int(status) >= 400:
                assert reply["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.anyio
async def test_every_reference_leads_somewhere(run: Run) -> None:
    async with run() as running:
        document = (await running.client.get("/openapi.json")).json()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for item in value.values() for found in references(item)]
        return [found for item in value for found in references(item)] if isinstance(value, list) else []

    found = references(document)
    assert len(found) > 30
    for reference in found:
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"], reference


@pytest.mark.anyio
async def test_what_is_not_documented_is_refused_once_it_is_known_who_asks(run: Run) -> None:
    async with run(authentication=True) as running:
        client, admin = running.client, running.token(Role.ADMIN)
        opened = {"project_id": "demo", "stt_provider": "whisper_local"}
        session_id = (await client.post("/v1/sessions", json=opened, headers=admin)).json()["session_id"]
        asked = 0
        for path, methods in (await client.get("/openapi.json")).json()["paths"].items():
            for method in methods if path not in OPEN else ():
                url = path.replace("{session_id}", session_id)
                sent: list[dict[str, Any]] = [{"params": {"surprise": "1"}}]
                if method == "post":
                    sent.append({"json": {"surprise": 1}})
                for extra in sent:
                    assert (await client.request(method, url, **extra)).status_code == 401, (method, path)
                    reply = await client.request(method, url, **extra, headers=admin)
                    assert reply.status_code == 422, (method, path)
                    if method != "head":
                        found = {item["field"]: item["message"] for item in reply.json()["errors"]}
                        assert found["surprise"] == "there is no such field", (method, path)
                    asked += 1
        assert asked == 22
        untouched = (await client.get(f"/v1/sessions/{session_id}", headers=admin)).json()
        assert untouched["state"] == "created"
        assert running.service.ready


@pytest.mark.anyio
async def test_an_empty_body_is_none(run: Run) -> None:
    async with run() as running:
        for content in (b"", b"{}", b"null"):
            session_id = await running.create()
            headers = {"Content-Type": "application/json"}
            reply = await running.client.post(f"/v1/sessions/{session_id}/stop", content=content, headers=headers)
            assert reply.status_code == 200, (content, reply.text)
