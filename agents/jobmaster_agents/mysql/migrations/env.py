"""Run by Alembic, which gets the connection and the tables' prefix from `schema.migrate`."""

from alembic import context

attributes = context.config.attributes
context.configure(connection=attributes["connection"], version_table=attributes["version_table"])
context.run_migrations()
