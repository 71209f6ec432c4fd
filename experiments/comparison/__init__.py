"""What `python -m experiments.compare` is made of."""
