"""The audit: how far each method's hypergradient is from the truth, at a point of a run."""
