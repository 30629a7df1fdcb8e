"""Model registries: the daemon's key, and in time pull and push."""
