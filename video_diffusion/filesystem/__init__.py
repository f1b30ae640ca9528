"""Files, folders and locks, local or in a bucket."""
