"""Multilevel optimization in PyTorch."""
