"""The browser stream at the server: its endpoint, its connections, and the state that outlives a connection."""
