"""Durable storage: the evidence chain and the sessions as rows of a database, SQLite where a host brings no other one, and what
helps when that can't be written."""
