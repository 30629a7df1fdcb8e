"""What several test folders share: the daemon as a subprocess, models, raw HTTP."""
