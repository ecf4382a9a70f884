"""Heritage methods, each complete in its room; their public names stand in tl and pp."""
