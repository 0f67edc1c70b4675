"""Durable storage: the evidence chain and the sessions in one SQLite file, and what helps when that file can't be written."""
