"""Features against genes and gene sets."""
