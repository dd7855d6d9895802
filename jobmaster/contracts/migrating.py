"""One migration at a time in a process.

Alembic keeps the environment of the migration under way in module globals, so two of them, on the writer threads of two
files, would read each other's. Whoever calls Alembic holds this.
"""

import threading

ONE_AT_A_TIME = threading.Lock()
