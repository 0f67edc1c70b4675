"""Any actors through virtual days, with faults, each from one seed."""
