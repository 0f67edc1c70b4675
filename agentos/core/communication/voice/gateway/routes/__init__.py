"""The HTTP routes: one router a file, and the helpers that they share."""
