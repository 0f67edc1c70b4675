"""The OpenAPI document says what the API does; generated requests find nothing that it does not say."""

from typing import Any

import pytest
from pydantic import BaseModel

from agentos.core.communication.voice.gateway import problems, views
from agentos.core.communication.voice.gateway.problems import MEDIA_TYPE
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
