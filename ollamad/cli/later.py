"""Commands that this program does not have yet."""

from __future__ import annotations

from typing import NoReturn

from ollamad.cli.commands import Invocation
from ollamad.cli.errors import NotAvailable


def pull(invocation: Invocation) -> NoReturn:
    raise NotAvailable("pulling models from a registry")


def push(invocation: Invocation) -> NoReturn:
    raise NotAvailable("pushing models to a registry")


def signin(invocation: Invocation) -> NoReturn:
    raise NotAvailable("an account on ollama.com")


def launch(invocation: Invocation) -> NoReturn:
    raise NotAvailable("launching other programs")
