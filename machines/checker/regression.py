"""A counterexample as a regression test, which fails as long as the model has the counterexample, and passes afterwards.

`regression` writes the test module; the module calls `assert_mended`.
"""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

from machines.checker.checking import check
from machines.checker.choices import choices
from machines.checker.model import Model, NotRepeatable
from machines.checker.on_path import holds_on, property_named
from machines.checker.replaying import replay
from machines.checker.result import Outcome, Path, Verdict
from machines.checker.text import one_line, slug

MOST_STATES: Final = 200_000  # searched if the run is no longer possible
_WIDTH: Final = 110  # columns of the written module
_PIECE: Final = 80  # columns of each part of a long literal
_CALL: Final = "from machines.checker.regression import assert_mended"


def regression(model_expression: str, imports: Iterable[str], model: Model[Any, Any], verdict: Verdict) -> str:
    """A pytest module that takes the path of `verdict` again and asserts that the property holds on it.

    `model_expression` makes the model, with the import statements `imports`: "TwoPhase(3)" and
    ("from two_phase import TwoPhase",), say. Raises `ValueError` if the verdict has no path that breaks a property, or if the
    expression or an import is not valid Python.
    """
    path = verdict.path
    if path is None or verdict.outcome is not Outcome.FAILS:
        raise ValueError(f"there is no counterexample to {verdict.name!r} that a test could take again")
    lines = sorted({line.strip() for line in (*imports, _CALL)}, key=_order)
    _compiled("\n".join(lines), "exec")
    _compiled(model_expression, "eval")
    labels = [one_line(model.label(action)) for action in path.actions]
    name = slug(verdict.name)
    expression = model_expression.strip()
    out = [f'"""{_title(model, verdict)}"""', "", *lines, ""]
    out += ["# The place of the initial state, then of each action among those that were enabled."]
    out += [_listing("CHOICES", [str(choice) for choice in choices(model, path)]), ""]
    out += ["# What the actions were called."]
    out += [_listing("ACTIONS", [_broken(label) for label in labels]), "", ""]
    out += [f"def test_{name}() -> None:", f"    model = {expression}"]
    loop = "" if path.loop is None else f", loop={path.loop}"
    out += [f"    assert_mended(model, {_literal(verdict.name)}, CHOICES, ACTIONS{loop})"]
    source = "\n".join(out) + "\n"
    _compiled(source, "exec")
    return source


def assert_mended(
    model: Model[Any, Any], name: str, taken: Sequence[int], actions: Sequence[str], *, loop: int | None = None
) -> None:
    """Assert that the run `taken` no longer breaks the property `name` of `model`.

    As long as the model has that run, with those `actions`, the property must hold on it. Without that run, the first
    `MOST_STATES` states must have no other run that breaks the property; for a property of states or steps, none of at most
    that length. So the test does not pass because something was renamed. Raises `AssertionError`, and
    `KeyError` if the model has no such property any more.
    """
    __tracebackhide__ = True
    path = _same_run(model, taken, actions, loop)
    if path is not None:
        if not holds_on(model, name, path):
            raise AssertionError(f"{model.name}: this run still breaks {name!r}:\n" + _listed(actions, loop))
        return
    is_of_paths = property_named(model, name).kind in {"can_always_reach", "leads_to"}
    report = check(model, max_depth=None if is_of_paths else len(actions) + 1, max_states=MOST_STATES)
    verdict = report.verdict(name)
    if verdict.outcome is Outcome.FAILS:
        found = [model.label(action) for action in verdict.path.actions] if verdict.path else []
        raise AssertionError(f"{model.name}: another run breaks {name!r}: {verdict.why}\n" + _listed(found, None))


def _same_run(model: Model[Any, Any], taken: Sequence[int], actions: Sequence[str], loop: int | None) -> Path | None:
    """The run, repeated; None if the model no longer has it with those actions, or if its loop no longer closes."""
    try:
        path = replay(model, taken)
    except NotRepeatable:
        return None
    if [one_line(model.label(action)) for action in path.actions] != list(actions):
        return None
    if loop is None:
        return path
    back = path.steps[loop - 1].state if loop else path.initial
    return Path(path.initial, path.steps, loop) if back == path.last else None


def _title(model: Model[Any, Any], verdict: Verdict) -> str:
    text = f"A run of {model.name} that broke: {verdict.name}."
    plain = one_line(text).encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
    return "\n".join(textwrap.wrap(plain, _WIDTH))


def _order(line: str) -> tuple[bool, str]:
    """A sort key: plain imports first, each kind by the module's name, as import sorters order them."""
    return not line.startswith("import "), line


def _literal(text: str) -> str:
    """`text` as a Python string literal of ASCII, in the quotes that need the fewest escapes."""
    plain = ascii(text)
    if plain.startswith('"'):
        return plain
    inner = plain[1:-1]
    if '"' in inner and "'" not in inner:
        return plain
    inner = inner.replace("\\'", "'").replace('"', '\\"')
    return f'"{inner}"'


def _broken(text: str) -> str:
    """`text` as a literal, or as several literals in brackets if one would be too long for a line."""
    whole = _literal(text)
    if len(whole) <= _WIDTH:
        return whole
    pieces = [""]
    for letter in text:
        if len(_literal(pieces[-1] + letter)) > _PIECE:
            pieces.append("")
        pieces[-1] += letter
    return "\n".join(["(", *(f"        {_literal(piece)}" for piece in pieces), "    )"])


def _listing(name: str, items: Sequence[str]) -> str:
    short = f"{name} = ({', '.join(items)}{',' if len(items) == 1 else ''})"
    if len(short) <= _WIDTH:
        return short
    return "\n".join([f"{name} = (", *(f"    {item}," for item in items), ")"])


def _listed(labels: Sequence[str], loop: int | None) -> str:
    return "\n".join(f"  {at + 1}. {'(again and again) ' if at == loop else ''}{it}" for at, it in enumerate(labels))


def _compiled(source: str, mode: str) -> None:
    try:
        compile(source, "<regression>", mode)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"no regression test can be made, this is not valid Python: {source!r}: {error}") from None
