"""Builders, which make records of videos and images, once."""
