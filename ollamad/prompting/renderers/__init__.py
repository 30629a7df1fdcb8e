"""Built-in renderers: a conversation as the prompt text that one family of models was trained on.

``registry.find_renderer`` finds one by the name in a model's config. Source:
``renderers-and-parsers.md`` 1 to 3.
"""
