"""Features against features."""
