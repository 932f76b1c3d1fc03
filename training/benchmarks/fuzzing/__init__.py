"""Odd inputs, made by chance, for readers and names."""
