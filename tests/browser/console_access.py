"""Who may look: tokens on the page, what a browser keeps of them, and what a role does not see."""

from playwright.sync_api import Page, expect

from tests.browser.conftest import Guarded, Visiting


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Access token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_a_token_opens_the_console_until_one_signs_out(visit: Visiting, guarded: Guarded) -> None:
    there = visit(guarded.url)
    page = there.open()
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("websocket", lambda socket: urls.append(socket.url))
    secret = guarded.token("--role", "operator")
    sign_in(page, secret)
    expect(page.get_by_role("heading", name="Sessions")).to_be_focused()
    page.reload()
    expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    page.get_by_role("link", name="New call").first.click()
    page.get_by_role("button", name="Open the call").click()
    expect(page.locator(".connection")).to_have_text("Connected")
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("log")).to_contain_text("go forward ten meters")
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    assert any(found.startswith("ws:") for found in urls)
    assert [found for found in urls if "avt_" in found or "avs_" in found or "avr_" in found] == []
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""

    page.get_by_role("link", name="Recording, evidence and more").click()
    expect(page.get_by_text("Your token may not read evidence.")).to_be_visible()
    expect(page.locator(".wave-all")).to_be_attached()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    there.expected = ("403",)  # the evidence


def test_a_wrong_token_is_told_and_not_kept(visit: Visiting, guarded: Guarded) -> None:
    there = visit(guarded.url)
    page = there.open()
    sign_in(page, "avt_of-nobody")
    expect(page.get_by_role("alert")).to_contain_text("The request is not authenticated")
    expect(page.get_by_label("Access token")).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    there.look("sign-in-refused")
    there.expected = ("401",)


def test_a_project_sees_its_own_sessions_only(visit: Visiting, guarded: Guarded) -> None:
    there = visit(guarded.url)
    page = there.open()
    sign_in(page, guarded.token("--role", "project", "--project", "lonely"))
    expect(page.get_by_role("status")).to_have_text("0 sessions")
    expect(page.locator(".empty")).to_contain_text("There are no calls yet.")


def test_who_looks_when_a_token_is_revoked_must_sign_in_again_and_is_told_why(
    visit: Visiting, guarded: Guarded
) -> None:
    there = visit(guarded.url)
    page = there.open()
    secret = guarded.token("--role", "auditor")
    sign_in(page, secret)
    expect(page.get_by_role("heading", name="Sessions")).to_be_focused()
    guarded.revoke(secret)
    expect(page.get_by_role("heading", name="Sign in")).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("was revoked")
    assert page.evaluate("sessionStorage.length") == 0
    there.expected = ("401",)


def test_a_call_of_a_high_risk_tier_is_opened_with_an_admins_token(visit: Visiting, guarded: Guarded) -> None:
    there = visit(guarded.url)
    page = there.open()
    sign_in(page, guarded.token("--role", "operator"))
    page.get_by_role("link", name="New call").first.click()
    page.get_by_label("Callers may mention sensitive data").check()
    page.get_by_label("The call gives access to data").check()
    expect(page.locator(".notice")).to_contain_text("Refused, risk high")
    admin = guarded.token("--role", "admin")
    page.get_by_label("Admin token").fill(admin)
    expect(page.locator(".notice")).to_contain_text("Allowed, risk high")
    page.get_by_role("button", name="Open the call").click()
    expect(page.locator(".connection")).to_have_text("Connected")
    page.get_by_role("button", name="End the call").click()
    page.get_by_role("link", name="Recording, evidence and more").click()
    expect(page.get_by_role("region", name="Policy")).to_contain_text("Allowed, risk high")
    assert admin not in page.content()
    there.expected = ("403",)  # evidence is not for operators
