"""The first part of the page of an `auto` run: the network that was delivered, for a reader who knows nothing of searches."""
