"""Tuning methods, batches, loss, the trainer, and models fitted from scratch."""
