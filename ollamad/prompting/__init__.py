"""Messages to prompt. Pure: no I/O, no clock."""
