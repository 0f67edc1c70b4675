"""Operations and reasons: each name has a meaning, and is in the documents with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from machines import operations, reasons
from machines.operations import OF_A_SESSION, OPERATIONS
from machines.reasons import DROPPED, UNTRANSCRIBED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "evidence.md").read_text()
TABLES = [OPERATIONS, DROPPED, UNTRANSCRIBED]


def named(module: Any) -> dict[str, str]:
    return {name: value for name, value in vars(module).items() if isinstance(value, str) and name.isupper()}


@pytest.mark.parametrize(("module", "meanings"), [(operations, OPERATIONS), (reasons, {**DROPPED, **UNTRANSCRIBED})])
def test_each_name_is_its_value_and_has_a_meaning(module: Any, meanings: Mapping[str, str]) -> None:
    assert {name.lower(): value for name, value in named(module).items()} == {name: name for name in meanings}
    assert len(set(meanings.values())) == len(meanings)
    assert set(OF_A_SESSION) < set(OPERATIONS)


@pytest.mark.parametrize("meanings", TABLES, ids=["operations", "dropped", "untranscribed"])
def test_the_documents_have_each_with_its_meaning(meanings: Mapping[str, str]) -> None:
    for name, meaning in meanings.items():
        assert f"| `{name}` | {meaning} |" in PAGE, name
