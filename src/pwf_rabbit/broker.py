"""The broker itself, whatever driver carries it: an intake and an outlet.

Everything runs on the event loop of who opened it. Connections are made when first needed, so that
a client that only publishes has one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pwf_core.capabilities import Capabilities
from pwf_core.commands import Message
from pwf_core.errors import BrokerUnavailableError, ConfigurationError
from pwf_core.ports import Delivery
from pwf_core.strangers import Strangers
from pwf_core.wire import encode_messages
from pwf_rabbit.intake import Intake
from pwf_rabbit.lanes import Tag
from pwf_rabbit.link import Connect, Sent
from pwf_rabbit.options import Options
from pwf_rabbit.outlet import Outlet, Parcel

__all__ = ["CAPABILITIES", "RabbitBroker"]

CAPABILITIES = Capabilities(technology="rabbitmq", durable=True, shared=True)

_log = logging.getLogger("pwf_rabbit")

_REASON = 1000  # characters of a problem that travel with a rejected message

_log = logging.getLogger("pwf_rabbit")


class RabbitBroker:
    """A broker over RabbitMQ; see `Broker` for what its methods promise."""

    def __init__(self, options: Options, connect: Connect) -> None:
        self._options = options
        self._connect = connect
        self._intake: Intake | None = None
        self._outlet: Outlet | None = None
        self._is_closed = False
        self._strangers = Strangers(_log, f"the queue {options.topology.rejected.name}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._options.where}>"

    @property
    def capabilities(self) -> Capabilities:
        """Durable and shared."""
        return CAPABILITIES

    async def health(self) -> str:
        """Return what does not work at the moment, for people; "" if everything does."""
        intake, outlet = self._intake, self._outlet
        troubles = [
            outlet.supervisor.failure if outlet is not None else None,
            intake.trouble if intake is not None else None,
        ]
        if outlet is not None and await outlet.is_blocked():
            troubles.append(outlet.blocked())
        return " ".join(sorted({str(one) for one in troubles if one is not None}))

    async def open(self) -> None:
        """See `Broker.open`; queues of services are looked at when they are first used."""
        self._is_closed = False
        await self._out().supervisor.link()

    async def close(self) -> None:
        """See `Broker.close`."""
        self._is_closed = True
        intake, self._intake = self._intake, None
        outlet, self._outlet = self._outlet, None
        if intake is not None:
            await intake.close()
        if outlet is not None:
            await outlet.supervisor.close()

    async def publish(self, messages: Sequence[Message]) -> list[bool]:
        """See `Broker.publish`."""
        return await self._out().publish(messages)

    async def receive(self, services: Sequence[str], limit: int) -> list[Delivery]:
        """See `Broker.receive`."""
        return await self._in().receive(services, limit)

    async def idle(self, services: Sequence[str], timeout: float) -> None:
        """See `Broker.idle`."""
        await self._in().idle(services, timeout)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.ack`."""
        if self._intake is not None:
            await self._intake.ack(deliveries)

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.reject`; they lie in the queue `pwf.{namespace}.rejected.messages`."""
        intake = self._intake  # whoever closes the broker meanwhile takes it away
        if intake is None:
            return  # of an epoch that is over: they come again
        try:
            sent = await self._out().send([self._aside(one) for one in deliveries])
        except (BrokerUnavailableError, ConfigurationError):
            sent = [Sent.UNKNOWN] * len(deliveries)
        done: list[Delivery] = []
        for delivery, outcome in zip(deliveries, sent, strict=True):
            if outcome is Sent.CONFIRMED:
                done.append(delivery)
            else:
                intake.put_back(delivery)  # kept until they can be set aside
        await intake.ack(done)
        if done:
            services = ", ".join(sorted({one.service for one in done}))
            self._strangers.note(len(done), services, done[0].problem)

    async def drain(self, service: str, limit: int) -> list[Delivery]:
        """See `Broker.drain`."""
        return await self._in().drain(service, limit)

    def _in(self) -> Intake:
        self._refuse_if_closed()
        if self._intake is None:
            self._intake = Intake(self._connect, self._options)
        return self._intake

    def _out(self) -> Outlet:
        self._refuse_if_closed()
        if self._outlet is None:
            self._outlet = Outlet(self._connect, self._options)
        return self._outlet

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise BrokerUnavailableError("This broker is closed.")

    def _aside(self, delivery: Delivery) -> Parcel:
        tag = delivery.tag
        assert isinstance(tag, Tag)
        topology, signer = self._options.topology, self._options.signer
        body = tag.body if delivery.problem else encode_messages(delivery.messages, signer)
        headers = {
            "pwf-queue": topology.queue(delivery.service).name,
            "pwf-problem": delivery.problem[:_REASON],
        }
        return Parcel(topology.rejected, body, headers)
