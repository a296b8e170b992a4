"""The dispatch of commands and the reactions to events, written against ports."""
