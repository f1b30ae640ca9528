"""Measurements; each prints its protocol and a table."""
