"""The master's schema, step by step, by Alembic. One database may hold several clusters, so every step and the table
that remembers the revision take the cluster's prefix."""

HEAD = "0005"
"""The revision that this code works with; kept here so that an up-to-date start loads no Alembic."""
