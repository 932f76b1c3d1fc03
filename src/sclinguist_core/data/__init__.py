"""Sections, the files they are read from, and what turns them into model input."""
