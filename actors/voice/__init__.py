"""The actors of a voice call (session, supervisor, recorder, transcriber, quality, policy, evidence) and their messages."""
