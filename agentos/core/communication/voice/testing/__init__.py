"""What a host's own tests use."""
