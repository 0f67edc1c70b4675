"""A call in the browser: what was spoken is on the page, also when the line is cut."""

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Line, Restarted, Visiting

WORDS = "go forward ten meters"
SOME_WORDS = "go forward"  # a busy machine's fake microphone skips samples, and then not every word is understood


def open_call(page: Page) -> None:
    page.get_by_role("link", name="New call").first.click()
    page.get_by_role("button", name="Open the call").click()
    expect(page.get_by_role("heading", name="Call for demo")).to_be_focused()
    expect(page.locator(".connection")).to_have_text("Connected")


def seen_from_now_on(page: Page) -> None:
    """Note every state that the drawing lights, and every preview of words."""
    page.evaluate(
        """() => {
            window.lit = [];
            window.previews = [];
            const note = (seen, value) => { if (seen.at(-1) !== value) seen.push(value); };
            const look = () => {
                if (document.querySelector(".calling") === null) return; // another view
                note(window.lit, document.querySelector(".state.lit").dataset.state);
                note(window.previews, document.querySelector(".partial").textContent);
            };
            look();
            new MutationObserver(look).observe(document.querySelector("main"), {childList: true, subtree: true});
        }"""
    )


def figure(page: Page, name: str) -> Locator:
    return page.locator(".facts > div", has=page.get_by_text(name, exact=True)).locator("dd")


def test_a_call_from_the_first_word_to_its_evidence(visit: Visiting, server: str) -> None:
    there = visit(server)
    page = there.open()
    open_call(page)
    seen_from_now_on(page)
    there.look("call-created")
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.locator(".chip")).to_have_text("active")
    meter = page.get_by_role("meter")
    expect(meter).not_to_have_attribute("aria-valuenow", "-60")
    there.look("call-active")
    expect(page.get_by_role("log")).to_contain_text(WORDS)
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    expect(page.locator(".connection")).to_have_text("Ended")
    there.look("call-stopped")
    lit = page.evaluate("window.lit")
    assert [state for state in lit if state != "stopping"] == ["created", "active", "stopped"]
    previews = [preview for preview in page.evaluate("window.previews") if preview]
    assert previews
    assert any(preview.startswith("go") and preview != WORDS for preview in previews)
    expect(figure(page, "Gaps")).to_have_text("none")
    expect(figure(page, "Reconnects")).to_have_text("0")
    expect(figure(page, "Received by the session")).to_have_text(figure(page, "Captured").inner_text())
    expect(page.get_by_role("button", name="End the call")).to_be_hidden()

    page.get_by_role("link", name="Recording, evidence and more").click()
    expect(page.get_by_role("heading", name="Session of demo")).to_be_focused()
    expect(page.locator(".chip")).to_have_text("stopped")
    expect(page.get_by_role("log")).to_contain_text(WORDS)
    expect(page.locator(".wave-all")).to_be_attached()
    expect(page.get_by_text("Verified: the chain holds")).to_be_visible()
    expect(page.get_by_role("region", name="Policy")).to_contain_text("Allowed, risk medium")
    expect(page.get_by_role("region", name="Policy")).to_contain_text("VOICE_SESSION_APPROVED")
    expect(page.get_by_role("region", name="Evidence")).to_contain_text("session created")
    expect(figure(page, "Dropped")).to_have_text("none")
    audio = page.locator("audio")
    length = audio.evaluate("audio => audio.duration")
    assert length > 2.5
    audio.evaluate("audio => { audio.muted = true; audio.currentTime = audio.duration / 2; }")
    expect(page.locator("#played rect")).to_have_attribute("width", re.compile(r"^1[45]\d"))  # of 300
    there.look("session-played")

    page.get_by_role("link", name="Sessions").click()
    expect(page.locator(".sessions li").first).to_contain_text(WORDS)


def test_words_stay_whole_when_the_line_is_cut_while_one_speaks(visit: Visiting, line: Line) -> None:
    there = visit(line.url)
    page = there.open()
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.locator(".chip")).to_have_text("active")
    page.wait_for_timeout(700)  # he says "go"
    line.cut()
    expect(page.locator(".connection")).to_have_text("Reconnecting")
    expect(page.get_by_role("region", name="Microphone")).to_contain_text("What you say is kept")
    there.look("call-cut")
    page.wait_for_timeout(1000)
    line.mend()
    expect(page.locator(".connection")).to_have_text("Connected")
    line.cut()
    line.mend()
    expect(page.get_by_role("log")).to_contain_text(WORDS)
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    assert page.locator(".words p").all_inner_texts()[0].endswith(WORDS)
    expect(figure(page, "Gaps")).to_have_text("none")
    assert int(figure(page, "Reconnects").inner_text()) >= 1
    page.get_by_role("link", name="Recording, evidence and more").click()
    expect(figure(page, "Dropped")).to_have_text("none")
    recorded = figure(page, "Frames recorded").inner_text()
    expect(figure(page, "Frames accepted")).to_contain_text(f"{recorded} (")
    there.expected = ("ERR_", "WebSocket")


def test_a_microphone_that_reads_at_its_own_rate_is_brought_to_that_of_the_session(
    visit: Visiting, server: str
) -> None:
    there = visit(server)
    there.page.add_init_script(
        """
        const make = AudioContext.prototype.createMediaStreamSource;
        AudioContext.prototype.createMediaStreamSource = function (stream) {
            if (this.sampleRate === 16000) throw new DOMException("other rate", "NotSupportedError");
            window.rate = this.sampleRate;
            return make.call(this, stream);
        };
        """
    )
    page = there.open()
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("log")).to_contain_text(SOME_WORDS)
    assert page.evaluate("window.rate") > 16_000
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")


def test_a_microphone_that_may_not_be_used_is_told_with_what_to_do(visit: Visiting, server: str) -> None:
    there = visit(server, width=360, microphone=False)
    page = there.open()
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("alert")).to_contain_text("allow it for this page")
    there.look("microphone-denied")
    there.context.grant_permissions(["microphone"])
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop the microphone")).to_be_visible()
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")


def test_a_microphone_that_is_unplugged_can_be_started_again(visit: Visiting, server: str) -> None:
    there = visit(server)
    there.page.add_init_script(
        """
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => (window.stream = await ask(wanted));
        """
    )
    page = there.open()
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.locator(".chip")).to_have_text("active")
    page.evaluate("stream.getAudioTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.get_by_role("alert")).to_contain_text("The microphone is gone")
    assert page.evaluate("stream.getAudioTracks()[0].readyState") == "ended"
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("log")).to_contain_text(SOME_WORDS)
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    expect(figure(page, "Gaps")).to_have_text(re.compile(r"missing$"))  # while there was none


def test_a_call_that_ends_while_the_browser_still_asks_leaves_no_microphone_on(visit: Visiting, server: str) -> None:
    there = visit(server)
    there.page.add_init_script(
        """
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.asked = [];
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            await new Promise((resolve) => { window.allow = resolve; });
            const stream = await ask(wanted);
            window.asked.push(stream);
            return stream;
        };
        """
    )
    page = there.open()
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("button", name="Starting…")).to_be_visible()
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    assert page.evaluate("(async () => { allow(); await new Promise((done) => setTimeout(done, 1000)); })()") is None
    assert page.evaluate("asked.map((stream) => stream.getTracks().map((track) => track.readyState)).flat()") == [
        "ended"
    ]


def test_a_call_by_keys_alone(visit: Visiting, server: str) -> None:
    there = visit(server)
    page = there.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="New call").last).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New call")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Project")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Call for demo")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Stop the microphone")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_have_text("stopped")
    expect(page.get_by_role("link", name="Recording, evidence and more")).to_be_focused()


def test_a_page_has_one_call_and_leads_back_to_it(visit: Visiting, server: str) -> None:
    there = visit(server, width=360)
    page = there.open("#/call")
    expect(page.get_by_role("main")).to_contain_text("This page has no call in progress.")
    there.look("call-none")
    open_call(page)
    page.get_by_role("link", name="New call").click()
    expect(page.get_by_role("main")).to_contain_text("This page has a call in progress.")
    there.look("new-call-busy")
    page.get_by_role("link", name="To the call").click()
    expect(page.locator(".connection")).to_have_text("Connected")
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    page.get_by_role("link", name="New call").click()
    expect(page.get_by_role("button", name="Open the call")).to_be_visible()


def test_another_page_follows_the_call_and_can_stop_it(visit: Visiting, server: str) -> None:
    caller = visit(server)
    page = caller.open()
    open_call(page)
    watcher = visit(server, width=360, dark=True)
    seen = watcher.open()
    expect(seen.locator(".sessions li").first).to_contain_text("created")
    seen.locator(".sessions a").first.click()
    expect(seen.get_by_role("heading", name="Session of demo")).to_be_focused()
    expect(seen.locator(".chip")).to_have_text("created")
    page.get_by_role("button", name="Start the microphone").click()
    expect(seen.locator(".chip")).to_have_text("active")
    expect(seen.get_by_role("log")).to_contain_text(SOME_WORDS)
    watcher.look("session-running")
    seen.get_by_role("button", name="Stop").click()
    dialog = seen.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    watcher.look("stop-asked")
    seen.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    seen.get_by_role("button", name="Stop").click()
    dialog.get_by_role("button", name="Stop the session").click()
    expect(seen.locator(".chip")).to_have_text("stopped")
    expect(seen.locator(".wave-all")).to_be_attached()
    expect(page.locator(".chip")).to_have_text("stopped")
    expect(page.locator(".connection")).to_have_text("Ended")


def test_a_microphone_that_is_interrupted_goes_on_and_what_was_not_heard_is_a_gap(visit: Visiting, server: str) -> None:
    there = visit(server)
    there.page.add_init_script(
        """
        const resume = AudioContext.prototype.resume;
        window.rings = false;
        window.contexts = new Set();
        AudioContext.prototype.resume = function () {
            contexts.add(this);
            return window.rings ? Promise.reject(new DOMException("a phone rings", "InvalidStateError")) : resume.call(this);
        };
        """
    )
    page = there.open()
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.locator(".chip")).to_have_text("active")
    page.evaluate("rings = true; Promise.all([...contexts].map((context) => context.suspend()))")
    expect(page.get_by_role("region", name="Microphone")).to_contain_text("The browser gives no sound now")
    expect(page.get_by_role("button", name="Stop the microphone")).to_be_visible()
    page.wait_for_timeout(1500)
    page.evaluate("rings = false")
    expect(page.get_by_role("region", name="Microphone")).not_to_contain_text("The browser gives no sound now")
    expect(figure(page, "Gaps")).to_have_text(re.compile(r"missing$"))
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    page.get_by_role("link", name="Recording, evidence and more").click()
    expect(figure(page, "Dropped")).to_have_text(re.compile(r"capture"))
    expect(page.locator(".wave-all")).to_be_attached()
    length = page.locator("audio").evaluate("audio => audio.duration")
    frames = int(re.sub(r"\D", "", figure(page, "Frames accepted").inner_text().split(" ")[0]))
    assert abs(length - frames / 50) < 0.1, "the recording is as long as the call"
    assert frames > 75


def test_a_page_that_is_loaded_again_in_a_call_takes_it_up(visit: Visiting, server: str) -> None:
    there = visit(server)
    page = there.open()
    page.on("dialog", lambda dialog: dialog.accept())  # the browser asks whether to leave
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.get_by_role("log")).to_contain_text(SOME_WORDS)
    page.reload()
    expect(page.get_by_role("heading", name="A call is in progress")).to_be_visible()
    there.look("call-left")
    page.get_by_role("button", name="Resume the call").click()
    expect(page.get_by_role("heading", name="Call for demo")).to_be_visible()
    expect(page.locator(".connection")).to_have_text("Connected")
    expect(page.get_by_role("log")).to_contain_text(SOME_WORDS)
    expect(page.locator(".chip")).to_have_text("active")
    expect(figure(page, "Gaps")).to_have_text(re.compile(r"missing$"))
    page.get_by_role("button", name="Start the microphone").click()
    expect(figure(page, "Captured")).not_to_have_text(re.compile(r"^0:00(\.0+)?$"))
    page.get_by_role("button", name="End the call").click()
    expect(page.locator(".chip")).to_have_text("stopped")
    page.reload()
    expect(page.get_by_role("heading", name="A call is in progress")).to_have_count(0)


def test_a_call_that_ended_meanwhile_is_not_offered_again(visit: Visiting, server: str) -> None:
    there = visit(server)
    page = there.open()
    page.on("dialog", lambda dialog: dialog.accept())
    open_call(page)
    page.get_by_role("button", name="Start the microphone").click()
    expect(page.locator(".chip")).to_have_text("active")
    expect(page.locator(".connection")).to_have_text("Connected")
    page.wait_for_function("sessionStorage.getItem('agentos-voice-call') !== null")
    left = page.evaluate("JSON.parse(sessionStorage.getItem('agentos-voice-call')).session_id")
    page.goto("about:blank")
    page.request.post(f"{server}/v1/sessions/{left}/stop", headers={"Idempotency-Key": "once"})
    there.open()
    expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('agentos-voice-call')") is None


def test_a_call_whose_server_died_says_recovered_and_keeps_its_words(visit: Visiting, tmp_path: Path) -> None:
    with Restarted(tmp_path / "home") as mortal:
        there = visit(mortal.url)
        page = there.open()
        open_call(page)
        page.get_by_role("button", name="Start the microphone").click()
        expect(page.get_by_role("log")).to_contain_text(SOME_WORDS)
        mortal.kill()
        expect(page.locator(".connection")).to_have_text("Reconnecting")
        expect(page.get_by_role("region", name="Microphone")).to_contain_text("this call has ended")
        page.wait_for_timeout(1000)
        mortal.begin()
        expect(page.locator(".connection")).to_have_text("Ended", timeout=60_000)
        expect(page.locator(".chip")).to_have_text("stopped")
        expect(page.get_by_role("log")).to_contain_text(SOME_WORDS)
        expect(page.get_by_role("region", name="Microphone")).to_contain_text("recovered")
        expect(page.get_by_role("region", name="Microphone")).to_contain_text("could not be sent")
        page.get_by_role("link", name="New call").first.click()
        expect(page.get_by_label("Resume the call after a restart of the server")).to_have_count(0)
        page.goto("about:blank")
    there.expected = ("ERR_", "WebSocket")
