"""Predicted against measured protein: metrics, baselines, overlays and the report."""
