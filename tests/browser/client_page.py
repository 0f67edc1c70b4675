"""The page of the documents that makes a call with the JavaScript client, in the application that they put it into."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visiting

PAGE = (Path(__file__).parents[2] / "docs" / "javascript-client.md").read_text()
FILES = dict(re.findall(r"```(?:python|html)\n(?:#|<!--) (\S+)(?: -->)?\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "uvicorn", "calls:app", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (re.search(r"running on (http://\S+)", line) for line in process.stderr)
            yield next((match[1] for match in found if match), "the application did not begin")
        finally:
            process.terminate()
            process.wait(30)


def test_the_page_of_the_documents_makes_a_call(visit: Visiting, host: str) -> None:
    assert sorted(FILES) == ["call.html", "calls.py"]
    there = visit(host)
    page = there.page
    page.goto(host)
    page.get_by_role("button", name="Speak").click()
    expect(page.locator("#words")).to_contain_text("go forward ten meters")
    expect(page.get_by_role("status")).to_have_text("open")
    page.get_by_role("button", name="End").click()
    expect(page.get_by_role("status")).to_have_text("over: stopped")
    there.expected = ("404",)  # the browser asks for an icon, too
