"""Tests of predicting many rows."""
