"""The orthogonal autoencoder."""
