"""Writing bundles: the archive, its manifest and its model card."""
