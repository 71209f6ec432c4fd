"""Training: the state, one jitted step, the loop, and what a run writes."""
