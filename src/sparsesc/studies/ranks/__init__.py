"""Rank-value encodings and what they keep."""
