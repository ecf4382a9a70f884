"""Moments, ranks, tails and blocks that every statistic stands on."""
