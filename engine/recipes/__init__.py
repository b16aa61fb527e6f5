"""Engines of the shipped experiments: what they measure, compare with and draw. Their problems: problems/recipes/."""
