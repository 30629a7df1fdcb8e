"""A real daemon with real runners, clients that misbehave, and everything that can go wrong."""
