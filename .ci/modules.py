"""Makes docs/modules.md, the list of all modules, of their own first sentences: `python .ci/modules.py`. With `--check` it only
says whether the page is as it would be made now."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "modules.md"
FLOORS = ("machines", "actors", "agentos")
HEAD = """# Modules

Every module, in its folder's room, with the first sentence of its own text. [Architecture](architecture.md) says how the rooms
hang together. `python .ci/modules.py` makes this page.
"""


def page() -> str:
    """The page as it would be made now. Raises `SystemExit` for a module without a text."""
    folders: dict[Path, list[Path]] = {}
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.*")):
            if path.suffix in {".py", ".js"} and path.parent.name != "versions":
                folders.setdefault(path.parent, []).append(path)
    return HEAD + "".join(_room(folder, files) for folder, files in folders.items())


def _room(folder: Path, files: list[Path]) -> str:
    first = [path for path in files if path.name == "__init__.py"]
    rest = [path for path in files if path.name != "__init__.py"]
    intro = "".join(f"{sentence_of(path)}\n" for path in first)
    rows = "".join(f"| `{path.name}` | {sentence_of(path)} |\n" for path in rest)
    table = f"\n| module | |\n| --- | --- |\n{rows}" if rest else ""
    return (
        f"\n## `{folder.relative_to(ROOT).as_posix()}/`\n\n{intro}{table}"
        if first
        else f"\n## `{folder.relative_to(ROOT).as_posix()}/`\n{table}"
    )


def sentence_of(path: Path) -> str:
    """The first sentence of a module's docstring, or of the comment that a script opens with."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        told = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = re.match(r"\s*(?:/\*\*?(.*?)\*/|((?://[^\n]*\n)+))", text, re.DOTALL)
        told = (
            re.sub(r"^\s*(?:\*|//) ?", "", next(filter(None, comment.groups())), flags=re.MULTILINE) if comment else ""
        )
    paragraph = " ".join(told.strip().partition("\n\n")[0].split())
    if not paragraph:
        raise SystemExit(f"{path.relative_to(ROOT)} opens with no text")
    return re.split(r"(?<=[.:]) (?=[A-Z])|:$", paragraph)[0].replace("|", "\\|")


def main() -> None:
    """Write the page, or hold it against what it would be."""
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text(encoding="utf-8") != page():
            raise SystemExit("docs/modules.md is not as it would be made now: run python .ci/modules.py")
    elif sys.argv[1:]:
        raise SystemExit(__doc__)
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
