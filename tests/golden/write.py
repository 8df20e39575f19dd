"""`python -m tests.golden.write 1`: write the files of a version, by the code that is here now.

Done once, when a version's formats are final. To repeat it is to pretend that what was released is
something else: the program refuses to write over files, unless they are deleted first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec
import redis
from tests.golden import payloads
from tests.golden.dump import dump
from tests.golden.scenes import BROKEN, FOR_EVER, SCENES, Scene

from pwf import BlockingClient
from pwf._requests import make_starts
from pwf.testing.servers import RedisServer
from pwf_core.adapters import Settings, Url
from pwf_core.commands import Commit, Granted, Message
from pwf_core.ids import CallId, ClaimId, RunId
from pwf_core.paired import BlockingPaired
from pwf_core.ports import Take
from pwf_core.protocol import Conclude, Conclusion, Invoke, process
from pwf_core.signing import Signer
from pwf_core.staging import in_parts
from pwf_core.state import Rules
from pwf_core.wire import encode_messages
from pwf_redis.adapter import adapter
from pwf_redis.keys import Keys

__all__: list[str] = []

_FOLDER = Path(__file__).parent
# Long past when the files are read, so that all that was set to come later is due then.
_THEN_MS = 1_577_836_800_000  # 2020-01-01
_LEASE_MS = 30_000
_HOUR_MS = 3_600_000
_FOR_EVER_MS = int(FOR_EVER.total_seconds() * 1000)


@attrs.define
class Pen:
    """Writes scenes into one namespace, by a clock of its own."""

    url: str
    paired: bool
    store: Any = attrs.field(init=False)
    client: BlockingClient = attrs.field(init=False)
    exchanges: int = 0

    def __attrs_post_init__(self) -> None:
        rules = Rules(paired=self.paired, retention_ms=_FOR_EVER_MS, dead_retention_ms=_FOR_EVER_MS)
        settings = Settings(namespace=self.name, rules=rules)
        url = Url.parse(self.url)
        make = adapter.blocking_store if self.paired else adapter.blocking_backend
        self.store = make(url, settings)
        self.store.operations.now_ms = _THEN_MS
        port: Any = self.store
        if self.paired:
            port = BlockingPaired(adapter.blocking_broker(url, settings), self.store)
        self.client = BlockingClient(lambda: port)

    @property
    def name(self) -> str:
        """The namespace."""
        return "paired" if self.paired else "fused"

    def write(self, scene: Scene) -> dict[str, Any]:
        """Play a scene; return what later versions must see of it."""
        operations = self.store.operations
        rules = operations.rules
        if scene.over:
            operations.rules = attrs.evolve(rules, retention_ms=_HOUR_MS)
        run = self._start(scene)
        for number in range(scene.rounds):
            (grant,) = self._take(scene)
            if not (scene.hold and number == scene.rounds - 1):
                command = _run(grant, {} if scene.unknown else scene.service.tasks)
                parts = [command]
                if scene.parts and isinstance(command, Commit):
                    parts = [*in_parts(command, 1)]
                self.client.port.apply(parts)
        if scene.lose:
            operations.now_ms += 2 * _LEASE_MS
            self.client.port.exchange([], self._wish(scene, 0))
        if scene.act is not None:
            scene.act(self.client, run)
        operations.rules = rules
        return {"run_id": run.id, "view": msgspec.to_builtins(run.view())}

    def _start(self, scene: Scene) -> Any:
        key = f"key of {scene.service.name}"
        if not scene.unsent:
            return self.client.start(scene.first, key=key)
        (start,) = make_starts([scene.first], [key])
        self.store.apply([start])  # no broker hears of it
        return self.client.run(start.run_id)

    def _take(self, scene: Scene) -> list[Granted]:
        return self.client.port.exchange([], self._wish(scene, 1)).grants

    def _wish(self, scene: Scene, limit: int) -> Take:
        self.exchanges += 1
        claim_id = ClaimId(f"golden:{self.exchanges}")
        return Take((scene.service.name,), limit, claim_id, _LEASE_MS)


def _run(grant: Granted, tasks: Mapping[str, Any]) -> Conclusion:
    """Run a call as a worker does, and return how it is to be concluded."""
    steps = process(grant, tasks, lambda _: None)
    effect = next(steps)
    if isinstance(effect, Invoke):
        args = [effect.context, *effect.args] if effect.task.takes_context else effect.args
        try:
            returned = effect.task.fn(*args, **effect.kwargs)
        except RuntimeError as error:
            effect = steps.throw(error)
        else:
            effect = steps.send(returned)
    assert isinstance(effect, Conclude)
    return effect.command


def _namespace(url: str, *, paired: bool) -> object:
    pen = Pen(url, paired)
    tasks = [task for scene in SCENES for task in scene.service.tasks.values()]
    BROKEN.update(task.address for task in tasks)
    for task in tasks:  # tracebacks are stored, and are not to say where this project lies
        task.fn.__code__ = task.fn.__code__.replace(co_filename="scenes.py")
    with pen.client:
        runs = {scene.service.name: pen.write(scene) for scene in SCENES}
    BROKEN.clear()
    with redis.Redis.from_url(url) as server:
        return {"runs": runs, "keys": dump(server, Keys(pen.name).prefix)}


def _messages() -> object:
    one = Message(RunId("0" * 31 + "1"), CallId("a" * 32), 0, "shop.order")
    many = [Message(RunId(f"{n:032x}"), CallId(f"{n:032x}"), 2**n, "größe.🎉") for n in range(32)]
    signer = Signer("live", (b"the key of the golden files",))
    later = [1, [*msgspec.structs.astuple(one), "new", {"a": 1}, [b"\x00"]]]
    bodies = {
        "one": ([one], encode_messages([one])),
        "many": (many, encode_messages(many)),
        "signed": ([one], encode_messages([one], signer)),
        "fields-of-a-later-version": ([one], msgspec.msgpack.encode(later)),
    }
    return {
        name: {
            "body": body.hex(),
            "namespace": "live" * (name == "signed"),
            "key": signer.keys[0].decode() * (name == "signed"),
            "messages": [msgspec.structs.astuple(message) for message in messages],
        }
        for name, (messages, body) in bodies.items()
    }


def main() -> int:
    """Write the files; return 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.write", description=__doc__)
    parser.add_argument("version", type=int)
    folder = _FOLDER / f"v{parser.parse_args().version}"
    folder.mkdir()
    files = {"messages": _messages(), "values": payloads.write()}
    with RedisServer() as server:
        for paired in (False, True):
            files["paired" if paired else "fused"] = _namespace(server.url, paired=paired)
    for name, content in files.items():
        text = json.dumps(content, indent=1, ensure_ascii=True, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
