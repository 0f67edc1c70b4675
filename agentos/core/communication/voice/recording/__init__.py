"""Recordings on the disk: segments while a call runs, one file after its end, and the checks of both."""
