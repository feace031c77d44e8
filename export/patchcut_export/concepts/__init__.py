"""Concepts from folders of photographs: what their images have in common, with a name."""
