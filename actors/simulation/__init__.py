"""The simulator: it runs real actors through virtual days with faults, each day from one seed."""
