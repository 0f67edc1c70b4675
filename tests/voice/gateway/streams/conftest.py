"""Streams run on every loop: what a socket gives, and when, differs."""

from tests.loops import ASYNCIO, TRIO, UVLOOP, loops

anyio_backend = loops(ASYNCIO, UVLOOP, TRIO)
