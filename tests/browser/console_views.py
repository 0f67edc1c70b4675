"""Every view of the console, on a wide and on a narrow screen, light and dark: axe finds nothing wrong with it, nothing sticks
out at its side, and there is a picture of it."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Guarded, Visiting

DOCUMENT = Path(__file__).parents[2] / "docs" / "console.md"
SCREENS = [
    pytest.param({"width": 1180, "dark": False}, id="wide-light"),
    pytest.param({"width": 1180, "dark": True}, id="wide-dark", marks=pytest.mark.slow),
    pytest.param({"width": 360, "dark": False}, id="narrow-light", marks=pytest.mark.slow),
    pytest.param({"width": 360, "dark": True}, id="narrow-dark"),
]


@pytest.fixture(scope="session")
def spoken(browser: Browser, server: str) -> str:
    """The id of a session in which words were said."""
    context = browser.new_context(permissions=["microphone"])
    page = context.new_page()
    page.goto(f"{server}/console/#/new")
    page.get_by_role("button", name="Open the call").click()
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("log")).to_contain_text("go forward ten meters")
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    link = page.get_by_role("link", name="Recording, evidence and more").get_attribute("href")
    context.close()
    assert link is not None
    return link.rpartition("/")[2]


@pytest.mark.parametrize("screen", SCREENS)
def test_sign_in(visit: Visiting, guarded: Guarded, screen: dict[str, Any]) -> None:
    there = visit(guarded.url, **screen)
    page = there.open()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    there.look("sign-in")


@pytest.mark.parametrize("screen", SCREENS)
def test_sessions(visit: Visiting, server: str, spoken: str, screen: dict[str, Any]) -> None:
    there = visit(server, **screen)
    page = there.open()
    expect(page.locator(".sessions li")).not_to_have_count(0)
    there.look("sessions")
    page.get_by_label("Project").fill("nobody's")
    expect(page.get_by_role("status")).to_have_text("0 sessions")
    expect(page.locator(".empty")).to_have_text("No session matches.")
    there.look("sessions-none")


@pytest.mark.parametrize("screen", SCREENS)
def test_new_call(visit: Visiting, server: str, screen: dict[str, Any]) -> None:
    there = visit(server, **screen)
    page = there.open("#/new")
    expect(page.locator(".notice.good")).to_contain_text("Allowed, risk medium")
    there.look("new-call")
    page.get_by_label("Callers may mention sensitive data").check()
    page.get_by_label("The call gives access to data").check()
    expect(page.locator(".notice.bad")).to_contain_text("Refused")
    page.get_by_role("button", name="Open the call").click()
    expect(page.get_by_role("alert")).to_contain_text("The policy refused the request")
    there.look("new-call-refused")
    there.expected = ("403",)  # the browser's own note of a refusal


@pytest.mark.parametrize("screen", SCREENS)
def test_call(visit: Visiting, server: str, screen: dict[str, Any]) -> None:
    there = visit(server, **screen)
    page = there.open("#/new")
    page.get_by_role("button", name="Open the call").click()
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("log")).to_contain_text("go forward ten meters")
    there.look("call")
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    there.look("call-over")


@pytest.mark.parametrize("screen", SCREENS)
def test_session(visit: Visiting, server: str, spoken: str, screen: dict[str, Any]) -> None:
    there = visit(server, **screen)
    page = there.open(f"#/sessions/{spoken}")
    expect(page.locator(".wave-all")).to_be_attached()
    expect(page.get_by_text("Verified: the chain holds")).to_be_visible()
    page.get_by_text("Every move, in words").click()
    expect(page.get_by_role("group", name="Moves")).to_contain_text("the drain deadline has passed")
    expect(page.get_by_role("group", name="Events")).to_contain_text("text: go forward ten meters")
    there.look("session")


def test_a_session_that_is_not_there_is_told(visit: Visiting, server: str) -> None:
    there = visit(server)
    page = there.open("#/sessions/voice-0")
    expect(page.get_by_role("alert")).to_contain_text("There is no such session")
    there.look("session-not-there")
    page.get_by_role("link", name="All sessions").click()
    expect(page.get_by_role("heading", name="Sessions")).to_be_focused()
    there.expected = ("404",)


def test_the_pictures_of_the_documents_are_small(visit: Visiting, server: str, spoken: str, shots: Path) -> None:
    there = visit(server, width=820)
    page = there.open("#/new")
    page.get_by_role("button", name="Open the call").click()
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.locator(".partial")).to_contain_text("forward")
    page.screenshot(path=shots / "console-call.png", clip={"x": 0, "y": 72, "width": 820, "height": 470})
    expect(page.get_by_role("log")).to_contain_text("go forward ten meters")
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    there.open(f"#/sessions/{spoken}")
    expect(page.locator(".wave-all")).to_be_attached()
    page.get_by_role("region", name="Transcript").evaluate("card => scrollTo(0, card.offsetTop - 16)")
    page.screenshot(path=shots / "console-session.png", clip={"x": 0, "y": 0, "width": 820, "height": 470})
    for name in ("console-call.png", "console-session.png"):
        assert (DOCUMENT.parent / "pictures" / name).stat().st_size < 60_000
        assert f"(pictures/{name})" in DOCUMENT.read_text()
