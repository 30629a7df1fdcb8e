"""One module per family of answer formats; ``registry`` finds a parser by its name."""
