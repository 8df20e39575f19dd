"""Test workflows: simulate them on virtual time, or run them on private real servers."""

from pwf.testing.exploration import Exploration, ExplorationError, SideEffect, explore
from pwf.testing.servers import (
    RabbitServer,
    RedisServer,
    ServerMissingError,
    ServerStartError,
    ValkeyServer,
)
from pwf.testing.simulation import Execution, Simulation, UnfinishedError, simulate

__all__ = [
    "Execution",
    "Exploration",
    "ExplorationError",
    "RabbitServer",
    "RedisServer",
    "ServerMissingError",
    "ServerStartError",
    "SideEffect",
    "Simulation",
    "UnfinishedError",
    "ValkeyServer",
    "explore",
    "simulate",
]
