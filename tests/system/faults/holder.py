"""Another process that holds a database file exclusively for a while: `holder.py FILE SECONDS`."""

import sqlite3
import sys
import time

connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))  # the handler's work: it stands for somebody's long maintenance
connection.execute("COMMIT")
print("given back", flush=True)
