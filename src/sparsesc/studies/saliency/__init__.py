"""Which genes, and which gene sets, drive the units of a model."""
