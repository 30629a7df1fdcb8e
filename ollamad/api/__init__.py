"""The HTTP surface: decode, call a service, encode. The only layer that knows HTTP."""
