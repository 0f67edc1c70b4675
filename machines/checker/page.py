"""The result of a check as one page of HTML, which fetches nothing, runs no script, and has a light and a dark mode."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from machines.checker.drawing import drawing
from machines.checker.model import Model
from machines.checker.report import claim, extent, rounds
from machines.checker.result import Outcome, Report, Verdict
from machines.checker.sequence import bad_step, sequence
from machines.checker.text import bare, changes, named_fields, one_line, shortened

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2933; --faint: #5b6774; --rule: #d5dae0; --box: #eef3f8;
  --note: #fff7d6; --danger: #b42318; --danger-paper: #fde8e6; --good: #176b3a; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6eaee; --faint: #a3afba; --rule: #3a444e;
  --box: #232c35; --note: #37331c; --danger: #ff9389; --danger-paper: #47201d; --good: #6fd598; --link: #7fbcff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 ui-sans-serif, system-ui, Helvetica, Arial, sans-serif; overflow-wrap: break-word; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100rem; }
.skip:focus { position: static; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--rule); padding: .4rem .6rem; text-align: left; vertical-align: top; }
code { overflow-wrap: anywhere; font: .9em ui-monospace, Menlo, Consolas, monospace; }
.holds { color: var(--good); font-weight: 600; }
.fails { color: var(--danger); font-weight: 600; }
.not-decided { color: var(--faint); font-weight: 600; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
section { border-top: 1px solid var(--rule); margin-top: 2rem; }
.scroll { overflow: auto; border: 1px solid var(--rule); }
li.here { background: var(--danger-paper); }
svg { display: block; font: 13px ui-sans-serif, system-ui, Helvetica, Arial, sans-serif; }
svg text { fill: var(--ink); }
svg text.strong { font-weight: 600; }
svg text.faint { fill: var(--faint); }
svg text.danger { fill: var(--danger); font-weight: 600; }
svg path { fill: none; stroke: var(--ink); stroke-width: 1.5; }
svg path.life { stroke: var(--rule); stroke-dasharray: 4 4; }
svg path.duplicate { stroke-dasharray: 6 4; }
svg path.drop, svg path.cross { stroke: var(--danger); }
svg path.cross { stroke-width: 2.5; }
svg path.head-message, svg path.head-duplicate { fill: var(--ink); stroke: none; }
svg rect.actor { fill: var(--box); stroke: var(--ink); }
svg rect.note { fill: var(--note); stroke: var(--faint); }
svg rect.crash { fill: var(--danger-paper); stroke: var(--danger); }
svg rect.spawn, svg rect.restart, svg rect.stop { fill: var(--box); }
svg rect.bad { fill: var(--danger-paper); stroke: var(--danger); stroke-width: 2; }
svg rect.loop { fill: none; stroke: var(--faint); stroke-width: 2; stroke-dasharray: 8 4; }
svg circle.clock { fill: var(--paper); stroke: var(--ink); }
@media print { details > * { display: block; } .scroll { overflow: visible; } }
"""


def page(model: Model[Any, Any], report: Report) -> str:
    """The whole page: a table of verdicts, then each path with its diagram, its steps, their changes, and the mailboxes.

    The page's content policy allows its own style sheet, by hash, and nothing else.
    """
    digest = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"{_text(report.model)}: {report.outcome.value}"
    shown_paths = [(at, it) for at, it in enumerate(report.verdicts) if it.path is not None]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{title}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            '<a class="skip" href="#verdicts">To the verdicts</a>',
            f"<header><h1>{_text(report.model)}: {_outcome(report.outcome)}</h1>",
            f"<p>{_text(report.strategy)}: {_text(extent(report))}</p></header>",
            "<main>",
            *_settings("Configuration", model.configuration()),
            *_settings("Search options", report.configuration),
            *_table(model, report),
            *(line for at, verdict in shown_paths for line in _section(model, verdict, at)),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _text(value: str) -> str:
    return escape(one_line(value))


def _outcome(outcome: Outcome) -> str:
    return f'<span class="{outcome.value.replace(" ", "-")}">{outcome.value}</span>'


def _settings(title: str, given: Mapping[str, Any]) -> list[str]:
    if not given:
        return []
    rows = [
        f'<tr><th scope="row">{_text(str(name))}</th><td><code>{_text(bare(value))}</code></td></tr>'
        for name, value in given.items()
    ]
    return [f"<h2>{title}</h2>", "<table>", *rows, "</table>"]


def _table(model: Model[Any, Any], report: Report) -> list[str]:
    out = ['<h2 id="verdicts" tabindex="-1">Verdicts</h2>', "<table>", "<thead><tr>"]
    out += [f'<th scope="col">{name}</th>' for name in ("Property", "Outcome", "Kind", "What it claims", "Why")]
    out += ["</tr></thead>", "<tbody>"]
    for at, verdict in enumerate(report.verdicts):
        name = _text(verdict.name)
        if verdict.path is not None:
            name = f'<a href="#path-{at}">{name}</a>'
        cells = [_outcome(verdict.outcome), _text(verdict.kind), _text(claim(model, verdict)), _text(verdict.why)]
        out.append(f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return [*out, "</tbody>", "</table>"]


def _section(model: Model[Any, Any], verdict: Verdict, at: int) -> list[str]:
    path = verdict.path
    if path is None:
        return []
    what = "Witness of" if verdict.outcome is Outcome.HOLDS else "Counterexample to"
    name = f"{what} {_text(verdict.name)}"
    fails = verdict.outcome is Outcome.FAILS
    picture = drawing(sequence(model, verdict), ident=f"path-{at}", title=f"{what} {verdict.name}")
    out = [
        f'<section id="path-{at}" aria-labelledby="name-{at}">',
        f'<h2 id="name-{at}">{name}</h2>',
        f"<p>{_text(verdict.why)}</p>",
        f"<details{' open' if fails else ''}><summary>Sequence</summary>",
        f'<div class="scroll" tabindex="0" role="region" aria-label="Sequence of {name}">',
        picture,
        "</div></details>",
        f"<details{' open' if fails else ''}><summary>Steps, and what they changed</summary>",
        *_steps(model, verdict),
        "</details>",
    ]
    pending = model.pending(path.last)
    if pending:
        out += ["<details open><summary>Mailboxes at the end</summary>", "<table>"]
        for box, items in pending.items():
            inside = "<br>".join(f"<code>{_text(shortened(item))}</code>" for item in items) or "empty"
            out.append(f'<tr><th scope="row">{_text(box)}</th><td>{inside}</td></tr>')
        out += ["</table></details>"]
    return [*out, '<p><a href="#verdicts">Back to the verdicts</a></p>', "</section>"]


def _steps(model: Model[Any, Any], verdict: Verdict) -> list[str]:
    path = verdict.path
    if path is None:
        return []
    fields = model.fields(path.initial)
    out = ["<p>From:</p>", "<ul>"]
    out += [
        f"<li>{_text(name)}: <code>{_text(shortened(value))}</code></li>"
        for name, value in named_fields(model, path.initial).items()
    ]
    out += ["</ul>", "<ol>"]
    bad = bad_step(verdict)
    for at, step in enumerate(path.steps):
        before, fields = fields, model.fields(step.state)
        note = " <em>(the loop begins)</em>" if at == path.loop else " <em>(here it breaks)</em>" if at == bad else ""
        opened = '<li class="here">' if at == bad else "<li>"
        out.append(f"{opened}{_text(model.label(step.action))}{note}")
        changed = changes(before, fields)
        if changed:
            lines = [
                f"<li>{_text(it.field)}: <code>{_text(it.old)}</code> → <code>{_text(it.new)}</code></li>"
                for it in changed
            ]
            out += ["<ul>", *lines, "</ul>"]
        out.append("</li>")
    out.append("</ol>")
    if path.loop is not None:
        out.append(f"<p>{rounds(path)}</p>")
    return out
