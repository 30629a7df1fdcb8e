"""Files that llama.cpp loads, made from published ones that it refuses.

Some published files hold text model, eyes and ears together, or use keys and names of their own. A
plan says what to make of such a file: one for the text model, one for its projector, or both. It
comes from the header alone; each kind of file is a module, ``registry`` knows them all. Contract:
``library-gguf-compat.md``.
"""
