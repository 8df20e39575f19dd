"""The Redis adapter: a fused backend on Redis Streams, a state store, and the streams as a broker.

Users reach it as `redis://host:port/db`, `rediss://…`, `redis+sentinel://…`, `embedded:///folder`, or
as the store of `amqp://…?store=redis://…`. This package imports its driver only when one of its modules is used.

Which feature of the server carries which promise:

- a command is atomic, and so are commit, publish and ack together: one Lua script
  (https://redis.io/docs/latest/develop/programmability/eval-intro/);
- what was acknowledged survives the process: the append-only file
  (https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/);
- waiting holds nothing: blocking list pops and publish/subscribe, both only as hints.
"""
