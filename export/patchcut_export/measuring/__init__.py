"""Accuracy on data sets, as the papers measure it."""
