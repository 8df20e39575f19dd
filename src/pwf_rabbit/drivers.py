"""The client libraries that can carry a broker. Each is imported when it is first connected with.

Measured on two shared cores, RabbitMQ 3.10, quorum queues, in calls per second, when up to 32 calls could
share a message (16 today, see `envelopes.py`):

| | aio-pika | pika |
|---|---|---|
| publish, 32 calls in a message | 37,000 | 41,000 |
| receive and ack, 32 calls in a message | 93,000 | 150,000 |
| publish, each call in its own message | 5,600 | 9,000 |
| receive and ack, each call in its own message | 4,500 | 15,000 |
"""

from __future__ import annotations

from importlib.util import find_spec

from pwf_core.errors import ConfigurationError
from pwf_rabbit.link import Connect, Link
from pwf_rabbit.options import Driver, Options

__all__ = ["connector"]


def connector(driver: Driver) -> Connect:
    """Return what connects through *driver*.

    Raises:
        ConfigurationError: If it is not installed.
    """
    if find_spec(driver.value.replace("-", "_")) is None:
        raise ConfigurationError(
            f"The package {driver.value} is missing. Run: pip install 'pubsub-workflow[rabbit]'",
        )
    return _aio_pika if driver is Driver.AIO_PIKA else _pika


async def _aio_pika(options: Options, name: str) -> Link:
    from pwf_rabbit.link_aio import connect

    return await connect(options, name)


async def _pika(options: Options, name: str) -> Link:
    from pwf_rabbit.link_pika import connect

    return await connect(options, name)
