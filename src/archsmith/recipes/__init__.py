"""Recipes: a named, typed configuration of a run for each experiment."""
