"""Importing this module registers every method that ships with the library."""

from . import cg, darts, exact, gmres, identity, minres, neumann, nystrom, reinforce, sama, unroll

__all__ = ["cg", "darts", "exact", "gmres", "identity", "minres", "neumann", "nystrom", "reinforce", "sama", "unroll"]
