"""The first symbols of a translator's vocabularies, which the reader of the sentences and the network share."""

PADDING, BEGIN, END, UNKNOWN = range(4)
"""Behind a sentence's end, before it, at its end, and for a rare word."""
