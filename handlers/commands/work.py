"""Commands of dead letters."""

from __future__ import annotations

from handlers.commands.fields import Command, DeadLetterId


class RetryDeadLetter(Command):
    """Retry the message of a dead letter; a retried command keeps its id, and gets a second outcome."""

    dead_letter: DeadLetterId


class DiscardDeadLetter(Command):
    """Discard a dead letter with its message."""

    dead_letter: DeadLetterId
