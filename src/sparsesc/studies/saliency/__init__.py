"""Which genes drive the units of a model."""
