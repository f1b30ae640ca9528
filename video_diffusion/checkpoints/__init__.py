"""What reads and writes weights, and the files beside them."""
