"""The protocol of the browser stream: its messages, the rules of both its ends, its media time, and its model."""
