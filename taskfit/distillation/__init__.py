"""Let a teacher label a few rows, know how good the labels are, and what may be concluded from them."""
