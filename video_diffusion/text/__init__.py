"""Captions to what a model is conditioned on."""
