"""Other machines: registries, to pull from and push to, and ollama.com."""
