"""SQLite, the store that is used where a host brings none: one file in the home, shared by all processes of the home."""
