"""Measurements of the running service: durations, the age of backlogs and the lag of the event loop."""
