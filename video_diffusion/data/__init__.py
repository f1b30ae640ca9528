"""Data sets, and how batches are made of their clips."""
