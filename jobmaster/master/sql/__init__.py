"""The master on a SQL database: SQLite here, written for Postgres and MySQL/MariaDB alike."""
