"""Training: objectives, data, stages."""
