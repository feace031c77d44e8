"""Training heads without labels, and calibrating their scores."""
