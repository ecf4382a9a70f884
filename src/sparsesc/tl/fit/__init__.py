"""Fit features, apply them, and judge the fit."""
