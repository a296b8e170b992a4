"""The nouns of Headrace, their events and their rules.

Pure code: it imports the standard library and `eventsourcing`, does no input or output, and reads no clock.
"""
