"""What the broker remembers, behind one protocol; SQLAlchemy implements it for SQLite and PostgreSQL."""
