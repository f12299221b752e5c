"""Generative models: kernels, network, loss and how to sample."""

from .diffusion import DiffusionSystem, Losses, LossWeights, Scores

__all__ = ["DiffusionSystem", "LossWeights", "Losses", "Scores"]
