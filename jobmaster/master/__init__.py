"""Tier 1: the master, one SQL database, and the code that owns it."""

from jobmaster.master.opening import masked as masked
from jobmaster.master.opening import open_master as open_master
