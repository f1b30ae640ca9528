"""TFDS builders that write data sets as ArrayRecord files."""
