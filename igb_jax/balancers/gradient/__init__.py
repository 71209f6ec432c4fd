"""Gradient balancers, one method a file."""
