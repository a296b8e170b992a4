"""The read models, one file each, and the changes that every event makes to their rows. Pure."""
