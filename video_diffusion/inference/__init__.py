"""From a trained network to videos."""
