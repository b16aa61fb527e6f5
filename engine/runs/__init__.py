"""Runs in folders of their own: one, several seeds, sweeps; started, gone on with, compared."""
