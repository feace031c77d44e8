"""Clustering whole collections of images, in bounded memory."""
