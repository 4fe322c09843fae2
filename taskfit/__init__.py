"""taskfit."""
