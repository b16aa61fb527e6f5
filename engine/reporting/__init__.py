"""Curves and a page about a finished run."""
