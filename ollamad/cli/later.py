"""Commands that this program does not have yet."""

from __future__ import annotations

from typing import NoReturn

from ollamad.cli.commands import Invocation
from ollamad.cli.errors import NotAvailable


def launch(invocation: Invocation) -> NoReturn:
    raise NotAvailable("launching other programs")
