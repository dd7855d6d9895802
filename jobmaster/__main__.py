"""`python -m jobmaster`."""

from jobmaster.cli.main import run

run()
