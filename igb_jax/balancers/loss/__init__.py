"""Loss balancers, one method a file."""
