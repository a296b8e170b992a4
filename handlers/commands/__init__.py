"""The commands as they come over the wire, a file a ward: their fields, rules and preparation."""
