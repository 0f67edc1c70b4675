"""The event loops that tests run on. A file or a folder in which they make no difference says so with a fixture of its own:
`anyio_backend = loops(UVLOOP, TRIO)`.
"""

from typing import Any

import pytest

ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")
ASYNCIO_SLOW = pytest.param(
    *ASYNCIO.values, id="asyncio", marks=pytest.mark.slow
)  # where a run on each loop takes long
UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")
TRIO = pytest.param(("trio", {}), id="trio")


def loops(*several: Any) -> Any:
    """The fixture that anyio's plugin asks for the loop of a test: one run of it on each."""

    @pytest.fixture(scope="module", params=several)
    def anyio_backend(request: pytest.FixtureRequest) -> Any:
        return request.param

    return anyio_backend
