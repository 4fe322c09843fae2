"""Prompting strategies: programs that yield requests and return an answer."""
