"""Recovery finds the sessions of processes that died, and ends or resumes them."""
