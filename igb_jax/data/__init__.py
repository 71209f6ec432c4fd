"""Data sets: from a source to arrays, and from arrays to batches."""
