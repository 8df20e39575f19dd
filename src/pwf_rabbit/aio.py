"""The async flavour: on the event loop of its caller, over aio-pika."""

from __future__ import annotations

from pwf_rabbit.broker import RabbitBroker
from pwf_rabbit.drivers import connector
from pwf_rabbit.options import Driver, Options

__all__ = ["AioPikaBroker"]


class AioPikaBroker(RabbitBroker):
    """A `Broker` that speaks through aio-pika, or through the driver that the options name."""

    def __init__(self, options: Options) -> None:
        super().__init__(options, connector(options.driver or Driver.AIO_PIKA))
