"""Actors as a model for the checker: the checked code is the code that runs."""
