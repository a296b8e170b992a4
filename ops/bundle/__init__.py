"""An archive that installs Headrace on a machine without a network: `make bundle`."""
