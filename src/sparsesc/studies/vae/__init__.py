"""Gaussian autoencoders on counts: distributions, latents, studies."""
