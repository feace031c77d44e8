"""Measures patchcut beside its neighbours: `python -m bench --help`, from the repository's root."""
