"""The actor system, for anybody's actors: what an actor is, its mailbox and timers, the loop that runs it, its supervision."""
