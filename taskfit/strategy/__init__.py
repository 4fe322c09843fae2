"""Strategies: the contract, the one grammar for their names, the table that finds them, and saved predictors."""
