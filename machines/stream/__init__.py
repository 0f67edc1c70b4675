"""The protocol of the browser stream: its messages, the rules of both ends, the media time, and the model that checks it."""
