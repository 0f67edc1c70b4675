"""The voice actors in the checker and in the simulator: their promises, their surroundings, their days."""
