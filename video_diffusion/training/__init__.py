"""The state of a run, its update, and what is reported beside it."""
