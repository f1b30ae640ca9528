"""Scores of generated videos."""
