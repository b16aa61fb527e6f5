"""Differentiating through a problem's solution: one file a method, plus the seam they share."""
