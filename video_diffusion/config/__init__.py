"""Configs: their files, fields, types and bounds."""
