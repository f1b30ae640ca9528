"""Trained models in Python."""
