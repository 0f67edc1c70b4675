"""Builds the documents as a site: `python .ci/site.py FOLDER`. Needs the extra `docs`.

The build is strict: a link that leads nowhere, or a name in the reference that does not exist, ends it. So does a page that
would load anything from elsewhere: the site is read where there is no network.
"""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "site"
LOADS = {"src", "srcset", "poster", "data"}  # attributes that load something, whatever they stand at
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
FROM_STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", re.IGNORECASE)


class Page(HTMLParser):
    """The addresses elsewhere that a page loads by itself; where a reader may go by a click is no matter."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elsewhere: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        for name, value in attrs:
            loads = name in LOADS or (name == "href" and tag in {"link", "use", "image"})
            if loads and value and ELSEWHERE.match(value):
                self.elsewhere.append(value)


def build(folder: Path) -> None:
    """Write the site into `folder`, which must not be there yet. Raises `SystemExit` with what is wrong."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already")
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--clean",
        "--strict",
        "--config-file",
        str(ROOT / "zensical.toml"),
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit("the documents are not in order")
        shutil.copytree(ROOT / "diagrams", BUILT / "diagrams")
        for path in BUILT.rglob("*.html"):
            # The drawings lie beside the documents in the repository, and within them on the site.
            text = path.read_text(encoding="utf-8").replace('src="../diagrams/', 'src="diagrams/')
            path.write_text(text, encoding="utf-8")
        problems = [f"{path.relative_to(BUILT)} loads {', '.join(found)}" for path, found in _loads() if found]
        if problems:
            raise SystemExit("not all of the site is here: " + "; ".join(problems))
        shutil.move(BUILT, folder)
    finally:
        shutil.rmtree(BUILT, ignore_errors=True)
        shutil.rmtree(ROOT / ".cache", ignore_errors=True)


def _loads() -> list[tuple[Path, list[str]]]:
    pages = [(path, Page(path.read_text(encoding="utf-8")).elsewhere) for path in BUILT.rglob("*.html")]
    styles = [(path, FROM_STYLE.findall(path.read_text(encoding="utf-8"))) for path in BUILT.rglob("*.css")]
    return pages + styles


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    build(Path(sys.argv[1]).resolve())
