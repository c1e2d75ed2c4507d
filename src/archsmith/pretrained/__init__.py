"""Weights that others have trained: where they are, how pictures are prepared for them, and that they are what they should be."""

from archsmith.pretrained.weights import Preparation, Weights, imagenet, is_installed, weights_from_file

__all__ = ["Preparation", "Weights", "imagenet", "is_installed", "weights_from_file"]
