"""Problems: what users subclass, its data and its update rule; ready ones are in :mod:`multilevel.problems.recipes`."""
