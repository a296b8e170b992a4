"""What can be asked: the read models, one file each, and what every event does to their rows. Pure."""
