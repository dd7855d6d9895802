"""The schema of one agent in an SQLite file, revision by revision."""
