"""Stores: what has happened. SQLite by default; in memory for tests and quick loops."""
