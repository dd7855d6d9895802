"""The schema of one agent in a Postgres database, revision by revision."""
