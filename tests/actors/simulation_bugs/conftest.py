"""The simulations of all tests here run beside each other, in processes that one fixture starts and ends."""

import pytest


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Not asked after each test: processes for the next ones run already, and all have ended with the module."""
