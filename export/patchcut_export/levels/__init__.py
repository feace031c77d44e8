"""The multilevel clustering framework (2311.18628): from a folder of images to a bundle's head `levels`."""
