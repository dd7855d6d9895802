"""The SQLite layer: one writer per process and file, shared by every agent, master and lease keeper in it."""

from jobmaster.sqlite.database import Database, open_database
from jobmaster.sqlite.location import path_of
from jobmaster.sqlite.looking import check_untouched, prefixes_in

__all__ = ["Database", "check_untouched", "open_database", "path_of", "prefixes_in"]
