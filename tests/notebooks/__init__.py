"""The notebooks, run as a reader would run them."""
