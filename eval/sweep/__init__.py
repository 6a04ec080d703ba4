"""Sweeps: which setting of a recipe is better."""
