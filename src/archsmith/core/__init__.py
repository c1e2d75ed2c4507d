"""Plain Python: the words of the design as types. No torch, no Ray, no SQLAlchemy."""
