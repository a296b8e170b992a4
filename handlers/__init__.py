"""What happens next: the dispatch of commands and the reactions to events, written against ports."""
