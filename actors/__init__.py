"""Who acts: the actor system, the supervisor and the voice actors. They may import `machines` and anyio, nothing above."""
