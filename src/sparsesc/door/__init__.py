"""The door: turns input into arrays, and results into slots."""
