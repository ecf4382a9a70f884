"""The deep generative decoder."""
