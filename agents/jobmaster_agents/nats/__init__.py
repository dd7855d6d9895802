"""The NATS JetStream transport."""

from jobmaster_agents.nats.agent import NatsAgent

__all__ = ["NatsAgent"]
