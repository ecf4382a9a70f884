"""Features beside labels, and beside each other."""
