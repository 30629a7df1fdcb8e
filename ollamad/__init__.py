"""Runs large language models on your own machine: Ollama's API on llama.cpp, supervised by trio."""
