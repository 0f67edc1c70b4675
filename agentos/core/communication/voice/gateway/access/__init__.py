"""Access to the server: tokens, roles, tickets, limits, and refusals in evidence."""
