"""What docs/deployment.md has operators type is what the adapters need, and what the tests run under."""

import json
import shlex

import pytest
from tests.least import blocks, rabbit_rights, redis_rules

from pwf_rabbit.topology import Topology

pytest.importorskip("redis")

from pwf_redis.checks import (
    NEEDED,
    NEEDED_BY_CLUSTERS,
    NEEDED_BY_FSYNC,
    NEEDED_BY_SENTINELS,
    NEEDED_BY_STREAMS,
    USED_IF_ALLOWED,
)


def test_the_redis_user():
    _urls, _sentinels, _cluster, user, faster, fsync, sentinels, clusters, streams = blocks("text")

    words = ["ACL", "SETUSER", "worker", "on", ">password", *redis_rules("default", NEEDED)]
    assert user.replace("\\\n", " ").split() == words
    assert faster.split() == [f"+{command}" for command in USED_IF_ALLOWED]
    assert fsync.split() == [f"+{command}" for command in NEEDED_BY_FSYNC]
    assert sentinels.split() == [f"+{command}" for command in NEEDED_BY_SENTINELS]
    assert clusters.split() == [f"+{command}" for command in NEEDED_BY_CLUSTERS]
    assert streams.split() == [f"+{command}" for command in NEEDED_BY_STREAMS]


def test_the_rabbitmq_user():
    (lines,) = blocks("sh")

    line = shlex.split(lines.splitlines()[1])
    assert line == ["rabbitmqctl", "set_permissions", "worker", *rabbit_rights("default")]


def test_the_queues():
    (text,) = blocks("json")

    topology = Topology("default")
    assert json.loads(text)["queues"] == [
        {
            "vhost": "/",
            "name": queue.name,
            "durable": True,
            "auto_delete": False,
            "arguments": queue.arguments,
        }
        for queue in (topology.queue("shop"), topology.rejected)
    ]
