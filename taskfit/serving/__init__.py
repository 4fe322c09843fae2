"""Predicting many rows: in shards that appear whole, on one machine or several, and with exported models."""
