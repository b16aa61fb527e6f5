"""Saving a whole run, and going on from where it was."""
