"""The door: what turns input into arrays, and results into slots."""
