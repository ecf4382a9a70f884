"""Act on features: steer, suppress, compare conditions."""
