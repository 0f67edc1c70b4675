"""Distributions that bring something along, installed in a temporary folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentos.core.communication.voice import extensions

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install("dist", "module", source, group="name = attribute")`: a distribution with one module and its entry points."""

    def put(distribution: str, module: str, source: str, **entry_points: str) -> None:
        folder = tmp_path / distribution
        metadata = folder / f"{distribution}-1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        groups = {"providers": "agentos_voice.providers", "stt": "agentos_voice.stt"}
        lines = [f"[{groups[group]}]\n{points}\n" for group, points in entry_points.items()]
        (metadata / "entry_points.txt").write_text("".join(lines))
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        extensions._installed.cache_clear()  # a process looks once

    yield put
    extensions._installed.cache_clear()
