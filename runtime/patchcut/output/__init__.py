"""Results on disk and on screen."""
