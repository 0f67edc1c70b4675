"""A running service: its parts put together, what it lets in, and what it says of itself."""
