"""The Modelfile language: reading, meaning, writing back, and the create request made of it.

Everything but ``digests`` (hashing) and the listing half of ``directory`` is pure.
"""
