"""The command line: a client of the daemon over HTTP, except ``serve`` and ``runners``.

Starting fast matters more here than anywhere else: every command's module is imported when that
command runs, and nothing on the way of ``list`` imports more than sockets, h11 and msgspec.
"""
