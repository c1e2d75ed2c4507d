"""The report: one self-contained HTML page, and the drawings in it. Reads nothing but the store."""
