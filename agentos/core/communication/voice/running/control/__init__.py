"""The socket beside a running service on which the command line talks to it."""
