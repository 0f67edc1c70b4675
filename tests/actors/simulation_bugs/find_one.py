"""Run days of the voice simulation until one of them breaks a promise; runs in a process of `tests.actors.fresh`."""

from typing import Any


def answer(first: int, seeds: int) -> dict[str, Any]:
    """Of so many seeds, the first from this one on that fails, and behind the last those before this one.

    The answer has the `seed`, None if every seed held, and the `promise`; or the `error` that a step of the world ended with.
    """
    from actors.voice_lab.simulation import voice_simulation  # noqa: PLC0415 - a bug may be such that it can't be loaded

    simulation = voice_simulation()
    for seed in (*range(first, seeds), *range(first)):
        try:
            day = simulation.run(seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the bug did
            return {"seed": seed, "promise": "", "error": f"{type(error).__name__}: {error}"}
        if day.failure is not None:
            return {"seed": seed, "promise": day.failure.promise, "error": ""}
    return {"seed": None, "promise": "", "error": ""}
