"""Torch modules that children are made of, and the baseline models. Imports torch and nothing of ours but core."""
