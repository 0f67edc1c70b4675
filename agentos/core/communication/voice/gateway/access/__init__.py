"""Who may do what: tokens, roles, tickets, limits, and refusals in evidence."""
