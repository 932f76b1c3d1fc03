"""Qt widgets, one a file; they render what a controller holds and hand on what is pressed."""
