"""Importing this module registers every method that ships with the library."""

from . import cg, darts, neumann

__all__ = ["cg", "darts", "neumann"]
