"""Damaged and hostile inputs, and what the product says of them."""
