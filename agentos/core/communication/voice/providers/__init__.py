"""Voice providers: how a call reaches the service."""
