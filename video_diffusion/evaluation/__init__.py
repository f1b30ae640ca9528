"""Scores of trained models, and of their samples."""
