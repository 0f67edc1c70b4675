"""The browser stream: who may come in, one connection, and what outlives it."""
