"""Plan, run and compare trials, recommend, and report."""
