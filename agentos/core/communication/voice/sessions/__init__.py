"""The running sessions: their directory, the door for their audio, and their listeners."""
