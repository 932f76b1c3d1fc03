"""Neural networks and their checkpoints."""
