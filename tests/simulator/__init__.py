"""Drives the scheduler's core with machines, models and clients that exist only as numbers."""
