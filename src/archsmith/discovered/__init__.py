"""Networks and functions that the papers found, ready to use."""
