"""The conversation of ``ollama run MODEL`` on a terminal (``cli.md`` 6)."""
