"""Version numbers: ours, and the one of the API that clients ask for."""

__version__ = "0.1.0"

#: What ``GET /api/version`` answers: the version of Ollama's API that this program speaks.
#: Clients compare it with the version that a feature or a model requires.
API_VERSION = "0.33.0"
