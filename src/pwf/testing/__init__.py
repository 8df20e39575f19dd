"""Test workflows: simulate them on virtual time, or run them on private real servers."""

from pwf.testing.servers import RabbitServer, RedisServer, ServerMissingError, ServerStartError
from pwf.testing.simulation import Execution, Simulation, UnfinishedError, simulate

__all__ = [
    "Execution",
    "RabbitServer",
    "RedisServer",
    "ServerMissingError",
    "ServerStartError",
    "Simulation",
    "UnfinishedError",
    "simulate",
]
