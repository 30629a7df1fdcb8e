"""Whose account at ollama.com this machine belongs to (http-api.md 16)."""

from __future__ import annotations

from ollamad.api.context import Context
from ollamad.api.responses import Response, json_response


async def post_me(context: Context) -> Response:
    return json_response(await context.services.account.user())


async def sign_out(context: Context) -> Response:
    """Also of the deprecated path with a key in it, which is not looked at."""
    await context.services.account.sign_out()
    context.services.cloud_details.forget()
    return json_response(None)
