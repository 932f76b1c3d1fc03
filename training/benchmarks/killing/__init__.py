"""Commands that are killed, what is left of them, and what they do when they are run again."""
