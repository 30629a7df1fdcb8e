"""The GGUF container: reading it safely, what follows from its header, and writing it.

Contract: ``modelfile-and-create.md`` 6 to 9. No trio, no knowledge of the store. Files may be
hostile: every count, length and offset is checked against the bytes that are really there before
anything is allocated. The calls block on the disk, so the daemon makes them in worker threads.
"""
