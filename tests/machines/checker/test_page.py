"""The page: complete, closed to the outside, and deaf to what a model's texts would like to be."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from machines.checker import Happening, Model, Outcome, Path, Property, Report, Step, Verdict, always, check
from machines.checker.drawing import drawing
from machines.checker.page import page
from machines.checker.sequence import sequence
from tests.machines.checker.examples.courier import Courier

_VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Reads a page and notes its elements; fails where one is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


class Hostile(Model[int, str]):
    name = "</title><script>alert(1)</script>"

    def initial(self) -> Sequence[int]:
        return [0]

    def actions(self, state: int) -> Sequence[str]:
        return ["</li><img src=x onerror=alert(2)>"] if state == 0 else []

    def step(self, state: int, action: str) -> int:
        return state + 1

    def properties(self) -> Sequence[Property]:
        return [always('"><script>alert(3)</script>', lambda state: state == 0)]

    def happenings(self, before: int, action: str, after: int) -> Sequence[Happening]:
        return [Happening("message", "<script>", "]]></text></svg><script>", '"&\x00')]

    def configuration(self) -> Mapping[str, Any]:
        return {"<i>": "</td><style>*{}</style>"}

    def fields(self, state: int) -> Mapping[str, Any]:
        return {"<b>": f"</code>{state}"}

    def pending(self, state: int) -> Mapping[str, Sequence[str]]:
        return {"<form action=//evil>": ["<a href=javascript:x>"]}


@pytest.fixture(scope="module")
def courier() -> tuple[Courier, Report]:
    model = Courier(frozenset({"double", "lose", "crash"}), lazy=True)
    return model, check(model)


def test_it_shows_every_property_and_every_path(courier: tuple[Courier, Report]) -> None:
    model, report = courier
    read = Reader(page(model, report))
    words = "".join(read.words)
    for verdict in report.verdicts:
        assert verdict.name in words
    paths = [verdict for verdict in report.verdicts if verdict.path is not None]
    assert len(paths) == 5
    assert [tag for tag, _ in read.elements].count("svg") == len(paths)
    assert "way: (0,) → ()" in "".join(words.split("\n"))
    assert "repeat for ever" in words
    assert "here it breaks" in words
    assert "Mailboxes at the end" in words


@pytest.mark.parametrize("model", [Courier(frozenset({"lose"})), Hostile()], ids=["courier", "hostile"])
def test_it_needs_nothing_from_outside_and_runs_nothing(model: Model[Any, Any]) -> None:
    text = page(model, check(model))
    read = Reader(text)
    assert {tag for tag, _ in read.elements}.isdisjoint({"script", "img", "link", "iframe", "form", "object", "base"})
    assert [tag for tag, _ in read.elements].count("style") == 1
    assert not [
        name for _, attributes in read.elements for name in attributes if name.startswith("on") or name == "style"
    ]
    assert all(address.startswith("#") for address in read.all("href"))
    assert read.all("src") == []
    assert "url(" not in re.sub(r'marker-end="url\(#[\w-]+\)"', "", text)


def test_its_policy_allows_its_own_style_sheet_alone(courier: tuple[Courier, Report]) -> None:
    text = page(*courier)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policies = [attributes["content"] for tag, attributes in Reader(text).elements if "http-equiv" in attributes]
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]


def test_every_link_and_label_has_where_to_go(courier: tuple[Courier, Report]) -> None:
    read = Reader(page(*courier))
    ids = read.all("id")
    assert len(ids) == len(set(ids))
    targets = {address.removeprefix("#") for address in read.all("href")} | set(read.all("aria-labelledby"))
    targets |= {re.sub(r"url\(#(.*)\)", r"\1", marker) for marker in read.all("marker-end")}
    assert targets <= set(ids)


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name(courier: tuple[Courier, Report]) -> None:
    regions = [it for _, it in Reader(page(*courier)).elements if it.get("class") == "scroll"]
    assert len(regions) == 5
    assert all(it["tabindex"] == "0" and it["role"] == "region" and it["aria-label"] for it in regions)


def test_it_follows_the_readers_light_or_dark(courier: tuple[Courier, Report]) -> None:
    text = page(*courier)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    light, dark = (
        set(re.findall(r"(--[a-z-]+):", part)) for part in style.split("@media print")[0].split("@media (", 1)
    )
    assert light == dark == set(re.findall(r"var\((--[a-z-]+)\)", style))
    assert "color-scheme: light dark" in style
    classes = {name for text in Reader(text).all("class") for name in text.split()}
    plain = {"ink", "hand", "message", "timer", "restart", "stop"}  # as any text, path or note
    assert {name for name in classes if f".{name}" not in style} <= plain


def test_each_drawing_is_an_image_with_a_title_inside_its_bounds(courier: tuple[Courier, Report]) -> None:
    model, report = courier
    for verdict in report.verdicts:
        root = ET.fromstring(drawing(sequence(model, verdict), ident="d", title=f"<{verdict.name}>"))
        assert root.get("role") == "img"
        assert root.findtext("title") == f"<{verdict.name}>"
        width, height = int(root.get("width", "0")), int(root.get("height", "0"))
        for rect in root.iter("rect"):
            x, y, wide, high = (int(rect.get(name, "0")) for name in ("x", "y", "width", "height"))
            assert x >= 0
            assert y >= 0
            assert x + wide <= width
            assert y + high <= height


def test_a_lost_message_ends_in_a_cross_and_not_in_a_head() -> None:
    model = Courier(frozenset({"lose"}))
    root = ET.fromstring(drawing(sequence(model, check(model).verdict("all can come")), ident="d", title="t"))
    drops = [path for path in root.iter("path") if path.get("class") == "drop"]
    assert len(drops) == 1
    assert drops[0].get("marker-end") is None
    assert [path.get("class") for path in root.iter("path")].count("cross") == 1
    assert [rect.get("class") for rect in root.iter("rect")].count("bad") == 1


def test_a_hostile_diagram_is_still_well_formed() -> None:
    model = Hostile()
    svg = drawing(sequence(model, check(model).verdicts[0]), ident="d", title="]]></title>")
    root = ET.fromstring(svg)
    assert "1. ]]></text></svg><script>" in [it.text for it in root.iter("text")]


class Talk(Model[int, Happening]):
    name = "talk"

    def happenings(self, before: int, action: Happening, after: int) -> Sequence[Happening]:
        return [action]

    def label(self, action: Happening) -> str:
        return action.text


def talk(*said: Happening, loop: int | None = None) -> tuple[Talk, Verdict]:
    path = Path(0, tuple(Step(it, at) for at, it in enumerate(said)), loop)
    return Talk(), Verdict("x", "always", Outcome.FAILS, path, "why")


def drawn(*said: Happening, loop: int | None = None) -> ET.Element:
    return ET.fromstring(drawing(sequence(*talk(*said, loop=loop)), ident="d", title="t"))


def test_a_message_to_oneself_and_a_long_one_have_room() -> None:
    root = drawn(
        Happening("message", "a", "to myself", "a"),
        Happening("drop", "b", "lost at home, with a text that is far too long for one line of it", "b"),
        Happening("message", "a", "w" * 80, "b"),
    )
    width = int(root.get("width", "0"))
    ways = {
        path.get("class"): path.get("d", "") for path in root.iter("path") if path.get("class") in {"message", "drop"}
    }
    assert ways.keys() == {"message", "drop"}
    for text in root.iter("text"):
        x, long = int(text.get("x", "0")), len(text.text or "") * 7
        left = {"middle": x - long // 2, "start": x}[text.get("text-anchor", "")]
        assert 0 <= left <= left + long <= width


def test_what_is_not_drawn_is_said() -> None:
    words = [text.text for text in drawn(*[Happening("note", "a", "n")] * 100).iter("text")]
    assert "steps 1 to 20 are not drawn" in words
    assert "the initial state breaks it" in [text.text for text in drawn().iter("text")]


def test_a_run_that_stays_where_it_is_and_one_without_steps_are_told() -> None:
    for said, sentence in (
        ([Happening("note", "a", "n")], "The run stays there for ever."),
        ([], "The run stays there"),
    ):
        model, verdict = talk(*said, loop=len(said))
        text = page(model, Report("talk", "breadth", (verdict,), 1, 1, 1, 0.1, complete=True))
        assert sentence in "".join(Reader(text).words)
