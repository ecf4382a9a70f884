"""Features against groups of cells."""
