"""Networks, as Flax linen modules whose parameters split in `shared` and `heads`."""
