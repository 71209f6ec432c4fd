"""Training: `problem` and `step` are published; the rest is what a run is made of."""
