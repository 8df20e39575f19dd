"""The RabbitMQ adapter: the broker half of a pair, beside any state store.

Users reach it as `amqp://…?store=redis://…`. The async flavour speaks through aio-pika, the blocking
one through pika; `drivers` imports either only when a connection is made. Which feature of the
server carries which promise of the port:

| promise | carried by |
|---|---|
| a confirmed message is kept | durable quorum queues, persistent messages, publisher confirms |
| none is confirmed that has no queue | `mandatory`; returns count as failures, and make the queue |
| unacked messages come again | acknowledgements by hand; a channel that closes requeues |
| rejected messages can be found | a confirmed publish to a bounded queue, then the ack |

See https://www.rabbitmq.com/docs/confirms and https://www.rabbitmq.com/docs/quorum-queues.
"""

__all__: list[str] = []
