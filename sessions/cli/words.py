"""A click command of the form ``NAME THING [OPTIONS] [--] [COMMAND...]``, whose command's options are its own."""

from __future__ import annotations

from typing import Any, ClassVar

import click


class ThingAndCommand(click.Command):
    """Options may stand before and after the thing; the first other word begins the command, and ends our options.

    The thing arrives as parameter ``thing``, the command as tuple ``words``.
    """

    thing: ClassVar[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_interspersed_args = False
        self.params.append(click.Argument(["words"], nargs=-1, type=click.UNPROCESSED))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the thing out, wherever the options end for the first time, and parse what is left."""
        given, _rest, _order = self.make_parser(ctx).parse_args(list(args))
        words = given.get("words")
        if not isinstance(words, tuple) or not words:
            # Lets --help through.
            super().parse_args(ctx, args)
            raise click.UsageError(f"Missing argument '{self.thing}'.", ctx)
        index = len(args) - len(words)
        rest = super().parse_args(ctx, [*args[:index], *args[index + 1 :]])
        ctx.params["thing"] = words[0]
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage line."""
        return [self.thing, "[OPTIONS]", "[--]", "[COMMAND...]"]


class ChrootAndCommand(ThingAndCommand):
    """``run CHROOT``."""

    thing = "CHROOT"


class SessionAndCommand(ThingAndCommand):
    """``exec SESSION``."""

    thing = "SESSION"
