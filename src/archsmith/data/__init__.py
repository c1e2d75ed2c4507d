"""Data: the readers of pictures, texts, tables and arrays, by name or path; nothing here trains."""
