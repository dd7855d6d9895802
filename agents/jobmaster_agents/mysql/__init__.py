"""The MySQL and MariaDB transport."""

from jobmaster_agents.mysql.agent import MysqlAgent

__all__ = ["MysqlAgent"]
