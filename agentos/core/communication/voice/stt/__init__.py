"""Speech to text: engines in worker processes, and the port through which the transcribers use them.

`base` says what an engine is, `registry` which there are, `worker` runs them in a process of its own, `protocol` is what
goes over the pipe, and `port` is the side that the actors see.
"""
