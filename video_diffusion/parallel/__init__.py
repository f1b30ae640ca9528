"""Devices: what they hold."""
