"""What is legal: models, state machines, policy rules and the evidence chain.

Nothing here reads a clock, draws a random number, opens a file or awaits. Time, ids and chance arrive as data.
"""
