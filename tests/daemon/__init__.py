"""The process itself, as people run it."""
