"""The sessions that run: the directory that knows them, the door for their audio, and those who listen."""
