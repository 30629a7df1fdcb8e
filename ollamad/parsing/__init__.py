"""Text and runner events to pieces of an answer. Pure: bytes in, pieces out."""
