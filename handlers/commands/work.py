"""Commands of dead letters."""

from __future__ import annotations

from handlers.commands.fields import Command, DeadLetterId


class RetryDeadLetter(Command):
    """Try once more what could not be handled; a command keeps its id, and has a second outcome."""

    dead_letter: DeadLetterId


class DiscardDeadLetter(Command):
    """Give up what could not be handled: it is taken out of the dead letters, with what was sent."""

    dead_letter: DeadLetterId
