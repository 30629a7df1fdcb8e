"""Stored models as the API speaks of them: found by name, listed, shown."""
