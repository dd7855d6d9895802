"""The master in memory: the plain reference of the master contract, for tests and simulations. It promises nothing
beyond its process."""

from jobmaster.master.memory.master import MemoryMaster as MemoryMaster
