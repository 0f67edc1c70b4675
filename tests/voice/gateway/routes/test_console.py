"""How the console is served: its headers, its caching, its addresses, and what its files may hold."""

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from agentos.core.communication.voice import gateway
from agentos.core.communication.voice.gateway.routes.console import machine
from machines.session import SESSION
from tests.voice.gateway.asking import ask
from tests.voice.gateway.conftest import Run

FOLDER = Path(gateway.__path__[0]) / "console"
FILES = sorted(FOLDER.iterdir())


@pytest.mark.anyio
async def test_everything_comes_from_here_and_is_asked_for_again_by_its_tag(run: Run) -> None:
    async with run() as running:
        for path in FILES:
            found = await running.client.get(f"/console/{path.name}")
            assert (found.status_code, found.content) == (200, path.read_bytes())
            policy = dict(part.split(" ", 1) for part in found.headers["content-security-policy"].split("; "))
            assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in found.headers["content-security-policy"]
            assert found.headers["x-content-type-options"] == "nosniff"
            assert found.headers["cache-control"] == "no-cache"
            tag = found.headers["etag"]
            for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                again = await running.client.get(f"/console/{path.name}", headers={"If-None-Match": known})
                assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            changed = await running.client.get(f"/console/{path.name}", headers={"If-None-Match": '"other"'})
            assert changed.status_code == 200
            head = await running.client.head(f"/console/{path.name}")
            assert (head.status_code, head.headers["content-length"]) == (200, str(len(found.content)))


@pytest.mark.anyio
async def test_the_page_is_there_for_everybody_and_says_whether_a_token_is_needed(run: Run) -> None:
    for authentication in (True, False):
        async with run(authentication=authentication) as running:
            page = await running.client.get("/console/")
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            about = (await running.client.get("/console/about.json")).json()
            assert about["authentication"] is authentication
            assert about["machine"] == machine(SESSION)
            assert about["resumable"] is False
            assert "/console/" not in str((await running.client.get("/openapi.json")).json()["paths"].keys())


@pytest.mark.anyio
async def test_calls_that_go_on_after_a_restart_are_offered_where_there_is_a_window(run: Run) -> None:
    async with run(resume_window_seconds=30) as running:
        assert (await running.client.get("/console/about.json")).json()["resumable"] is True


def test_the_machine_is_told_whole() -> None:
    told = machine(SESSION)
    assert (told["initial"], told["final"]) == ("created", ["stopped"])
    assert told["states"] == ["created", "active", "stopping", "stopped"]
    assert [tuple(move.values()) for move in told["moves"]] == [
        (move.trigger, move.source.value, move.dest.value, move.why) for move in SESSION.moves
    ]
    assert told["deadlines"] == {"stopping": "drain_expired"}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["console.py", "..%2fconsole.py", "%2e%2e/app.py", "nothing.js", "a/b.js"])
async def test_nothing_else_is_there(run: Run, name: str) -> None:
    async with run() as running:
        reply = await running.client.get(f"/console/{name}")
        assert reply.status_code == 404


@pytest.mark.anyio
async def test_the_address_of_the_server_leads_to_the_console(run: Run) -> None:
    async with run() as running:
        front = await running.client.get("/")
        assert (front.status_code, front.headers["location"]) == (307, "console/")
        assert (await running.client.get("/", follow_redirects=True)).content == (FOLDER / "index.html").read_bytes()
        assert (await running.client.post("/")).status_code == 405


@pytest.mark.anyio
async def test_it_works_where_a_host_mounts_it(run: Run) -> None:
    async with run() as running:
        host = Starlette(routes=[Mount("/calls", running.app)])
        moved = await ask(host, "GET", "/calls/console")
        assert (moved.status, moved.headers["location"]) == (307, "console/")
        front = await ask(host, "GET", "/calls/")
        assert (front.status, front.headers["location"]) == (307, "console/")
        page = await ask(host, "GET", "/calls/console/")
        assert page.body == (FOLDER / "index.html").read_bytes()
        assert (await ask(host, "GET", "/calls/console/app.js")).status == 200


@pytest.mark.anyio
async def test_a_name_that_is_not_ours_is_refused(run: Run) -> None:
    async with run() as running:
        reply = await ask(running.app, "GET", "/console/", ("host", "evil.example"))
        assert reply.status == 403


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_asks_for_nothing_outside_and_has_no_code_or_style_in_its_markup(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"(?:https?:)?//[a-z0-9-]+(?:\.[a-z0-9-]+)+", text)) <= {"http://www.w3.org"}  # SVG's name
    if path.suffix == ".html":
        assert not re.search(r"<style|<script(?! type=\"module\" src=)|\sstyle=|\son\w+=|javascript:", text)
        for named in re.findall(r'(?:src|href)="([^#"]+)"', text):
            assert (FOLDER / named).is_file(), named
    if path.suffix == ".js":
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        for named in re.findall(r'from "(.+?)"', text):
            assert (FOLDER / named).is_file(), named


def test_every_file_is_used() -> None:
    texts = [path.read_text() for path in FILES]
    for path in FILES:
        assert path.name == "index.html" or any(path.name in text for text in texts), path.name


def test_the_client_needs_no_other_file() -> None:
    assert "import " not in (FOLDER / "agentos-voice.js").read_text().replace("import.meta", "")
