"""Controllers: plain objects that hold the state of the window; none of them imports Qt."""
