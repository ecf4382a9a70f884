"""Variational autoencoders on counts: distributions of counts, latent spaces, comparisons of architectures."""
