"""The documents' page of the JavaScript client tells of all that it has."""

import re
from pathlib import Path

import pytest

from agentos.core.communication.voice import gateway

MODULE = (Path(gateway.__path__[0]) / "console" / "agentos-voice.js").read_text()
PAGE = (Path(__file__).parents[4] / "docs" / "javascript-client.md").read_text()


def test_every_export_is_on_the_page() -> None:
    exports = re.findall(r"^export (?:class|function|const) (\w+)", MODULE, re.MULTILINE)
    assert len(exports) > 10
    assert [name for name in exports if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("name", ["VoiceStream", "Microphone"])
def test_every_member_and_event_is_in_the_tables_of_its_class(name: str) -> None:
    match = re.search(rf"^export class {name} .*?^}}", MODULE, re.MULTILINE | re.DOTALL)
    assert match is not None
    told = set(re.findall(r"`(\w+)[(`]", PAGE.partition(f"\n## `{name}`")[2].partition("\n## ")[0]))
    members = set(re.findall(r"^  (?:async )?(?:get )?([a-z]\w*)\(", match[0], re.MULTILINE)) - {"constructor"}
    events = set(re.findall(r'this\.#tell\("(\w+)"', match[0]))
    options = set(re.findall(r"@param .* \[?options\.(\w+)", match[0]))
    assert len(members) > 3
    assert len(events) > 3
    assert len(options) > 3
    assert (members | events | options) - told == set()
