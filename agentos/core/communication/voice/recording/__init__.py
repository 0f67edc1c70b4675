"""Sound on the disk: segments while a call runs, one file when it has ended, and the checks of both."""
