"""Names, manifests and blobs on disk: the model directory that Ollama and ollamad share.

Files become visible by rename and are synced first, so a crash leaves the directory as it was
before or after an operation. Everything here is synchronous and safe to call from several threads.
"""
