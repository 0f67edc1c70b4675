"""Any actors as a model for the checker: the code that runs is the code that is checked."""
