"""schemathesis makes requests of the OpenAPI document, good ones and bad ones, and holds every reply against it."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.voice.gateway.serving import serving

CHECKS = [
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]
ENDS_THE_SERVICE = "/v1/drain"
NOTHING_TO_GET_WRONG = {
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /v1/statistics",
    "GET /v1/evidence/verification",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("backend", "examples"), [pytest.param("asyncio", 25, marks=pytest.mark.slow), ("trio", 5)])
def test_no_request_gets_a_reply_that_is_not_documented(backend: str, examples: int) -> None:
    asked: set[str] = set()
    statuses: set[int] = set()
    with serving("--no-auth", "--backend", backend) as server:
        known = server.create()
        document = server.curl("/openapi.json")
        for operations in document["paths"].values():
            for described in operations.values():
                # This server asks nobody who they are; who may do what is tested elsewhere.
                described.pop("security", None)
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=server.url)
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path == ENDS_THE_SERVICE:
                continue
            asked.add(operation.label)
            good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
            takes_something = operation.label not in NOTHING_TO_GET_WRONG
            bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) if takes_something else good

            @hypothesis.settings(
                max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            @hypothesis.given(case=st.one_of(good, bad), exists=st.booleans())
            def ask(case: Any, exists: bool) -> None:
                if exists and case.path_parameters:
                    case.path_parameters["session_id"] = known
                reply = case.call(headers={"Accept": "application/json"})
                statuses.add(reply.status_code)
                case.validate_response(reply, checks=CHECKS)

            ask()
        assert server.curl("/readyz") == {"status": "ok"}
        assert server.end() == 0
    assert len(asked) == 19
    assert {200, 201, 404, 422} <= statuses
