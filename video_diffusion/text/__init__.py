"""Turns captions into what a model is conditioned on."""
