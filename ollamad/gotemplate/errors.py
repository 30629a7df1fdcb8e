"""What can go wrong with a template (prompting 2.8)."""

from __future__ import annotations


class TemplateSyntaxError(ValueError):
    """The text is no template; the text of the error is ``template: :LINE: MESSAGE``."""


class TemplateRunError(ValueError):
    """Running it failed: ``template: :LINE:COL: executing "NAME" at <NODE>: MESSAGE``.

    COL is an offset in bytes in the line, NODE the source of what failed.
    """


class CallError(ValueError):
    """A function refuses its arguments; the template's error quotes it behind the name."""
