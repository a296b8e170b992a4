"""A bundle: one archive that installs Headrace on a machine without a network. `make bundle` writes it."""
