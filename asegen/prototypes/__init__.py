"""Prototypes: learned from crystals, ranked for a formula."""
