"""Measurements of the running service that say how late and how busy it is."""
