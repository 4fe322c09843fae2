"""Metrics, intervals and paired comparisons."""
