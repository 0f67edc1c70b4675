"""The rules of the voice system: models, state machines, policy and the evidence chain.

Nothing here reads a clock, draws a random number, opens a file or awaits. Time, ids and chance arrive as data.
"""
