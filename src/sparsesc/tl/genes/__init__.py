"""Genes and gene sets of features."""
