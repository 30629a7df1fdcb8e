"""One llama.cpp process for one model: found, started, watched, asked and stopped here."""
