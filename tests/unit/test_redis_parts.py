"""The pure parts of the Redis adapter: names, batches as script calls, errors, URLs. No server."""

import asyncio
import re
import subprocess
import sys

import pytest

from pwf_core import failures, transition
from pwf_core.adapters import Durability, Settings, Url
from pwf_core.commands import (
    Answer,
    Bury,
    Claim,
    Commit,
    Drop,
    Emit,
    Fire,
    Postpone,
    Postponement,
    Renew,
    Requeue,
    Settle,
    Start,
    Started,
)
from pwf_core.decisions import Decision, NewCall, NewGather, NewJoin
from pwf_core.errors import (
    CodecError,
    ConfigurationError,
    PwfError,
    StoreFullError,
    StoreUnavailableError,
)
from pwf_core.ports import Take
from pwf_core.state import Rules
from pwf_core.steps import drive
from pwf_core.views import Outcome, Status
from pwf_redis.adapter import adapter
from pwf_redis.embedded import adapter as embedded
from pwf_redis.keys import Keys, parse_member

driver = pytest.importorskip("redis.exceptions")
msgpack = pytest.importorskip("msgspec.msgpack")

from pwf_redis import checks, codec, records, scripts  # noqa: E402
from pwf_redis.consuming import Consuming  # noqa: E402
from pwf_redis.errors import NoGroupError, NotAllowedError, translate  # noqa: E402
from pwf_redis.layout import check_format  # noqa: E402
from pwf_redis.links import BlockingLinks, Links  # noqa: E402
from pwf_redis.rounds import call  # noqa: E402
from pwf_redis.scripts import EXCHANGE  # noqa: E402
from pwf_redis.sentinels import SentinelTarget  # noqa: E402
from pwf_redis.target import Target  # noqa: E402

RULES = Rules(retention_ms=1, dead_retention_ms=2)
CALL = NewCall("c" * 32, "a.t", b"\xc4\xff body", 5, 6)


def values_of(commands, more=0, **options):
    """The request's values, and the payloads beside it.

    Its head has 7, each command 9 and *more* for what commits make, what is to be taken 7.
    """
    blob, *payloads = codec.encode_request(commands, RULES, "1 fused", sweep=0, **options)
    size = 7 + 9 * len(commands) + more + 7
    return msgpack.decode(b"\xdd" + size.to_bytes(4, "big") + blob), payloads


class TestKeys:
    def test_share_one_slot(self):
        keys = Keys("prod")
        all_keys = [
            keys.due,
            keys.dead,
            keys.undecodable,
            keys.format,
            keys.run("r"),
            keys.key("{other}"),
            keys.queue("s"),
            keys.wake("s"),
            keys.stream("s"),
            keys.ready("s"),
            keys.rejected,
        ]

        assert {re.search("{.*?}", key)[0] for key in all_keys} == {"{prod:0}"}
        assert len(set(all_keys)) == len(all_keys)

    @pytest.mark.parametrize("name", ["", "a{b", "a}b", "line\nbreak", "\0"])
    def test_refuse_namespaces_that_would_break_the_slot(self, name):
        with pytest.raises(ConfigurationError, match="namespace"):
            Keys(name)

    def test_members_are_parsed_back(self):
        """Colons in a service's name included."""
        assert parse_member(b"run:call:a:b") == ("run", "call", "a:b")
        assert parse_member(b"run::") == ("run", "", "")


class TestRequest:
    def test_has_settings_commands_and_take(self):
        take = Take(("a", "b", "c"), 7, "w:4", 1000, suspects=False)
        values, _ = values_of([Fire("r", "")], take=take, now_ms=12)

        assert values[:7] == [12, "1 fused", False, 1, 2, 3_600_000, 1]
        assert values[7:16] == [9, "r", "", 0, 0, 0, 0, 0, 0]
        # Every exchange begins with another service, so that none starves the others.
        assert values[16:] == [0, "w", "w:4", 1000, False, 7, ["b", "c", "a"]]

    @pytest.mark.parametrize(
        "command",
        [
            Start("r", CALL, "key", "print"),
            Claim("r", "c", 1, "w:1", 5, suspects=False),
            Renew("r", "c", "w:1", 5),
            Commit("r", "c", "w:1", Decision()),
            Postpone("r", "c", "w:1", Postponement.PARK, 5, "why"),
            Bury("r", "c", "w:1", "why"),
            Emit("r", "e", b""),
            Settle("r", "c", 1),
            Fire("r", "c"),
            Requeue("r", "c"),
            Drop("r", "c", dead=True, reason="why"),
        ],
    )
    def test_every_command_takes_nine_values(self, command):
        """The script reads that many, whatever the kind."""
        values, _ = values_of([command])

        assert values[8] == "r"

    def test_payloads_travel_beside_it(self):
        """Redis's msgpack knows no binary type."""
        decision = Decision(
            calls=(CALL,),
            emits=(("e", b"\x00"),),
            joins=(NewJoin(CALL, ("e", "f"), ("f",)),),
            gathers=(NewGather(CALL, (CALL, CALL)),),
            result=b"\xff",
        )
        values, payloads = values_of([Commit("r", "c", "w:1", decision)], 2 + 7 + 17 + 5 + 3)
        numbered = {number: payloads[number - 2] for number in range(2, len(payloads) + 2)}

        assert values[11] == 2  # the result
        assert values[12:16] == [1, 1, 1, 1]
        assert numbered[2] == b"\xff"
        assert numbered[values[17]] == b"\x00"
        assert payloads.count(CALL.body) == 5
        assert not any(isinstance(value, bytes) for value in values)

    def test_reasons_may_hold_what_has_no_utf8(self):
        values, _ = values_of([Bury("r", "c", "w:1", "lone \udc80 surrogate")])

        assert values[11] == "lone \\udc80 surrogate"

    @pytest.mark.parametrize("size", [0, 3, 100, 7000])
    def test_any_number_of_commands_can_be_read(self, size):
        """The header that is cut off has one, three or five bytes."""
        values, _ = values_of([Fire("r", "c")] * size)

        assert values[6] == size

    def test_room_is_asked_for_by_what_grows(self):
        leaf = Commit("r", "c", "w:1", Decision(result=b"1"))
        link = Commit("r", "c", "w:1", Decision(calls=(CALL,)))
        fork = Commit("r", "c", "w:1", Decision(calls=(CALL, CALL)))
        large = Commit("r", "c", "w:1", Decision(result=b"x" * 100_000))
        commands = [
            leaf,
            link,
            fork,
            large,
            Start("r", CALL),
            Emit("r", "e", b""),
            Settle("r", "c", 0),
        ]

        found = [codec.needs_room(command) for command in commands]

        assert found == [False, False, True, True, True, True, False]


class TestReply:
    def test_becomes_values(self):
        grant = [b"r", b"c", 3, b"a.t", b"body", 4, 2, [b"e", b"\xff"], [None, b"1"], 0]
        claim = Claim("r", "c", 3, "w:9", 5)
        take = Take(("a",), 1, "w:10", 5)
        reply = [0, [0, [b"r", 1, 0], grant], [*grant, *grant], [[b"r", b"c", 1, b"a.t"]], 17, 3]

        done = codec.decode_reply(reply, [Fire("r", ""), Start("r", CALL), claim], take)
        assert done.strange == 3

        assert done.replies[:2] == [Answer.DONE, Started("r", created=True)]
        assert done.replies[2].claim_id == "w:9"
        assert [one.claim_id for one in done.grants] == ["w:10", "w:10"]
        assert done.grants[0].failures == 1
        assert done.grants[0].suspect
        assert done.grants[0].events == {"e": b"\xff"}
        assert done.grants[0].results == [None, b"1"]
        assert done.enqueued[0].address == "a.t"
        assert done.next_due_ms == 17

    def test_says_what_could_not_be_judged(self):
        refused = codec.decode_reply([1, b"command", 2, b"WRONGTYPE"], [], None)

        assert (refused.kind, refused.name) == ("command", 1)

    def test_outcomes_are_read_back(self):
        told = bytes([4, 1]) + (3).to_bytes(4, "big") + b"why" + b"\xc0"

        assert records.outcome_of(told) == Outcome(Status.FINISHED, b"\xc0", "why")

    @pytest.mark.parametrize("noise", [b"", b"\x01", b"\xff\x00\x00\x00\x00\x00", b"PING"])
    def test_noise_is_one_error(self, noise):
        with pytest.raises(CodecError):
            records.outcome_of(noise)


class TestScripts:
    def test_are_numbered_as_in_python(self):
        text = scripts.source("request")

        def numbers(names):
            found = re.search(names.replace(", ", r",\s+") + r"\s*=\s*([\d,\s]*\d)", text)
            return [int(number) for number in found[1].split(",")]

        assert numbers("MAX_LOST, SUSPECT_LOST, DEFER_MS, OUTBOX_MS") == [
            transition.MAX_LOST,
            transition.SUSPECT_LOST,
            transition.DEFER_MS,
            transition.OUTBOX_MS,
        ]
        assert numbers("UNCLAIMED_MS, MOST_UNCLAIMED") == [
            transition.UNCLAIMED_MS,
            transition._MOST_UNCLAIMED,
        ]
        assert [answer.name for answer in codec.ANSWERS] == [
            "DONE", "ENDED", "LOST", "BUSY", "STALE", "DEFERRED", "REFUSED",
        ]  # fmt: skip
        assert numbers("DONE, ENDED, LOST, BUSY, STALE, DEFERRED, REFUSED") == [*range(7)]
        assert [status.name for status in records.STATUSES] == [
            "RUNNING", "WAITING", "STALLED", "FINISHED", "FAILED", "CANCELLED",
        ]  # fmt: skip
        assert numbers("RUNNING, WAITING, STALLED, FINISHED, FAILED, CANCELLED") == [
            *range(1, 7),
        ]
        assert numbers("EXTENSION, FAILURE, LONGEST") == [
            failures._EXT32,
            failures._TYPE,
            failures.LONGEST,
        ]
        assert [phase.name for phase in records.PHASES] == [
            "OUTBOX", "QUEUED", "LEASED", "TIMED", "PARKED", "DEAD",
        ]  # fmt: skip
        assert numbers("OUTBOX, QUEUED, LEASED, TIMED, PARKED, DEAD") == [1, 2, 3, 4, 5, 6]

    def test_have_numbers_where_their_names_are_used(self):
        """Lua has no constants; upvalues would be bound in every call."""
        text = scripts.EXCHANGE.text(flagged=False).decode()
        code = re.sub(r"'[^'\n]*'|--[^\n]*", "", text)

        names = set(re.findall(r"\b[A-Z][A-Z_]+\b", code))
        assert names == {"ARGV", "DIGITS", "KEYS", "NONE", "PACKED"}
        assert text.count("\n") == "\n".join(map(scripts.source, scripts.EXCHANGE.parts)).count(
            "\n"
        )

    def test_have_chapters_as_functions_within_each_other(self):
        """Else a function's way to the locals that it shares would grow with the script."""
        text = scripts.EXCHANGE.text(flagged=False).decode()
        chapters = sum(scripts.source(name).count("\n--== ") for name in scripts.EXCHANGE.parts)

        assert chapters > 3
        assert len(re.findall(r"(?m)^return \(function\(\) --== ", text)) == chapters
        assert text.endswith("return main()" + " end)()" * chapters + "\n")

    @pytest.mark.parametrize("script", [scripts.START, scripts.EXCHANGE])
    def test_begin_with_nothing_of_the_last_time(self, script):
        """A server that keeps the functions keeps what they have changed, too."""
        text = re.sub("--.*", "", "\n".join(map(scripts.source, script.parts)))
        made = set(re.findall(r"(?m)^local (\w+)\s*= .*\{", text))
        declared = re.findall(r"(?m)^local (\w+(?:, \w+)*)\s*$", text)
        begins = "".join(re.findall(r"(?ms)^local function (?:begin_\w+|main)\(.*?^end$", text))
        changed = {name for names in declared for name in names.split(", ")}

        # Never changed; and a cache of at most a value for each length of a small body.
        assert made <= {"NONE", "DIGITS", "PACKED", "act", "before_text"}
        assert len(changed) > 15
        assert [name for name in changed if not re.search(rf"\b{name}\b[\w, ]* = ", begins)] == []

    @pytest.mark.parametrize("table", ["joining", "rare"])
    def test_what_is_made_when_it_is_needed_is_there(self, table):
        text = "\n".join(map(scripts.source, scripts.EXCHANGE.parts))
        made = re.findall(rf"(?m)^function {table}\.(\w+)\(", text)
        wanted = set(re.findall(rf"\b{table}\.(\w+)\(", text))

        assert len(made) > 5
        assert sorted(made) == sorted(wanted)

    def test_flags_are_a_line_in_front(self):
        body = scripts.EXCHANGE.text(flagged=False)

        assert scripts.EXCHANGE.text(flagged=True) == b"#!lua\n" + body
        assert scripts.DRAIN.text(flagged=True) == b"#!lua flags=allow-oom\n" + body

    def test_without_flags_a_write_in_front_stands_for_them(self):
        body = scripts.EXCHANGE.text(flagged=False)
        line, _, rest = scripts.DRAIN.text(flagged=False).partition(b"\n")

        assert line == b"redis.call('UNLINK', KEYS[1] .. ':')"
        assert rest == body

    def test_each_file_says_what_it_takes_and_answers(self):
        for name in ("exchange", "read", "publish", "settle", "release", "tidy", "waiting"):
            text = scripts.Script((name,)).text(flagged=False).decode()
            head = text.partition("\n\n")[0] + text.split("\nlocal")[0]

            assert "KEYS[1]" in head, name
            assert "Reply:" in head, name


class TestErrors:
    @pytest.mark.parametrize(
        ("raised", "expected"),
        [
            (driver.ConnectionError("Connection refused"), StoreUnavailableError),
            (driver.TimeoutError("late"), StoreUnavailableError),
            (TimeoutError(), StoreUnavailableError),
            (driver.BusyLoadingError("loading"), StoreUnavailableError),
            (driver.ReadOnlyError("READONLY"), StoreUnavailableError),
            (driver.ResponseError("UNBLOCKED force unblock"), StoreUnavailableError),
            (driver.OutOfMemoryError("OOM command not allowed"), StoreFullError),
            (driver.ResponseError("OOM allow-oom flag is not set"), StoreFullError),
            (driver.ResponseError("MISCONF Errors writing to the AOF file"), StoreFullError),
            (driver.ResponseError("BUSY Redis is busy running a script"), StoreUnavailableError),
            (driver.AuthenticationError("WRONGPASS"), ConfigurationError),
            (driver.NoPermissionError("NOPERM"), NotAllowedError),
            (driver.ResponseError("NOAUTH Authentication required."), ConfigurationError),
            (driver.ResponseError("NOGROUP No such key"), NoGroupError),
            (driver.ResponseError("ERR syntax error"), PwfError),
            (OSError("no route to host"), StoreUnavailableError),
        ],
    )
    def test_of_the_driver_become_ours(self, raised, expected):
        found = translate(raised, "db.example:6379")

        assert type(found) is expected
        assert "db.example:6379" in str(found)

    @pytest.mark.parametrize(
        "raised", [driver.ConnectionError("Connection refused."), OSError("Connection refused")]
    )
    def test_say_what_to_do_where_nobody_listens(self, raised):
        assert str(translate(raised, "db.example:6379")) == (
            "Redis at db.example:6379 cannot be reached: Connection refused. Is it running, and is "
            "that where it listens?"
        )

    def test_others_stay(self):
        error = ZeroDivisionError()
        missing = driver.NoScriptError("NOSCRIPT")

        assert translate(error, "x") is error
        assert translate(missing, "x") is missing


class TestUrl:
    def test_says_where(self):
        target = Target.of_url(Url.parse("redis://me:secret@db.example:7000/3?timeout=2.5"))

        assert target.where == "db.example:7000"
        assert target.timeout == 2.5
        assert target.arguments["db"] == 3
        assert target.arguments["password"] == "secret"
        assert "secret" not in repr(target)

    @pytest.mark.parametrize("tail", ["my%20own/3?", "my%20own?db=3&"])
    def test_says_who_knows_where(self, tail):
        url = f"rediss+sentinel://me:secret@one,[::1]:7/{tail}timeout=8&sentinel_password=hidden"
        target = SentinelTarget.of_url(Url.parse(url))

        assert target.where == "my own (sentinels one:26379, ::1:7)"
        assert (target.sentinels.name, target.timeout, target.tls) == ("my own", 8.0, True)
        assert target.arguments["db"] == 3
        assert (target.arguments["username"], target.arguments["password"]) == ("me", "secret")
        for sentinel in target.sentinels.order:
            assert (sentinel.timeout, sentinel.tls) == (2.0, True)
            assert sentinel.arguments["username"] is None
            assert sentinel.arguments["password"] == "hidden"
        assert "secret" not in repr(target)
        assert "hidden" not in repr(target)

    def test_has_defaults(self):
        target = Target.of_url(Url.parse("redis://"))

        assert (target.where, target.arguments["db"]) == ("localhost:6379", 0)

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("redis://host/first", "database number"),
            ("redis://host?timout=3", "timout"),
            ("redis://host?timeout=soon", "timeout='soon'"),
            ("redis://host?timeout=0", "0.1 to 3600"),
            ("redis://host?ca_certs=/x", "rediss://"),
            ("redis://one,other:1/0", "redis+sentinel://"),
            ("redis+sentinel://host", "a master's name"),
            ("redis+sentinel:///m", "a master's name"),
            ("redis+sentinel://host,/m", "a master's name"),
            ("redis+sentinel://one,two:x/m", "a port that is none"),
            ("redis+sentinel://host/m/first", "database number"),
            ("redis+sentinel://host/m/1?db=2", "another database"),
            ("redis+sentinel://host/m?sentinel=x", "Known to redis+sentinel:// are"),
            ("redis+sentinel://host/m?ca_certs=/x", "rediss+sentinel://"),
        ],
    )
    def test_mistakes_are_named(self, url, says):
        with pytest.raises(ConfigurationError, match=re.escape(says)):
            adapter.backend(Url.parse(url), Settings())

    @pytest.mark.parametrize(
        ("url", "says"),
        [("embedded://", "needs a folder"), ("embedded:///tmp/x?fsync=1", "fsync")],
    )
    def test_mistakes_of_embedded_ones_are_named(self, url, says):
        with pytest.raises(ConfigurationError, match=says):
            embedded.backend(Url.parse(url), Settings())

    def test_folders_keep_their_upper_case(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        backend = embedded.backend(Url.parse("embedded://Data/Mine%20own"), Settings())

        assert backend.operations.facts.where == str(tmp_path / "Data" / "Mine own")

    def test_each_port_is_made_without_a_server(self):
        url = Url.parse("redis://nowhere.invalid:1")
        for name in ("backend", "broker", "store"):
            for flavour in (name, f"blocking_{name}"):
                port = getattr(adapter, flavour)(url, Settings())

                assert port.capabilities.durable, flavour

    def test_a_missing_driver_is_named_with_its_cure(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "hiredis", None)
        with pytest.raises(ConfigurationError, match=re.escape("pubsub-workflow[redis]")):
            adapter.store(Url.parse("redis://"), Settings())

    def test_a_missing_server_program_is_named_with_its_cure(self, monkeypatch):
        from pwf_redis.embedded import find_server

        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        with pytest.raises(ConfigurationError, match=re.escape("pubsub-workflow[embedded]")):
            find_server()

    def test_the_package_is_imported_without_its_driver(self):
        code = (
            "import sys, pwf_redis.adapter, pwf_redis.embedded;"
            "sys.exit(any(name in sys.modules for name in ('redis', 'hiredis', 'asyncio')))"
        )

        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class _Server:
    """Answers the start-up check from a table."""

    def __init__(self, version="7.0.15", **settings):
        self.version = version
        self.settings = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
        } | {name.replace("_", "-"): value for name, value in settings.items()}
        self.forbidden = False
        self.confirms = 1
        self.refusal = None
        self.format = None

    def answer(self, command):
        match command:
            case ("INFO", _) if self.refusal is not None:
                raise translate(self.refusal, "here:1")
            case ("INFO", _):
                return f"# Server\r\nredis_version:{self.version}\r\n".encode()
            case ("CONFIG", "GET", _) if self.forbidden:
                raise ConfigurationError("NOPERM")
            case ("CONFIG", "GET", name):
                return [name.encode(), self.settings[name].encode()]
            case ("HELLO",):
                return [b"server", b"redis", b"version", self.version.encode(), b"modules", []]
            case ("WAITAOF", *_):
                if self.version == "?":
                    raise PwfError("ERR unknown command 'WAITAOF'")
                return [self.confirms, 0]
            case ("SET", _, value, "NX"):
                self.format = self.format or value.encode()
                return None
            case ("GET", _):
                return self.format
        raise AssertionError(command)

    def check(self, durability=Durability.STANDARD):
        facts = checks.Facts(where="here:1", durability=durability)
        self.drive(checks.check(facts))
        return facts

    def drive(self, steps):
        drive(steps, lambda effect: [self.answer(one) for one in effect.commands])


class TestChecks:
    def test_a_good_server_passes(self):
        assert _Server().check().knows_flags

    def test_an_old_one_works_without_flags(self):
        assert not _Server("6.2.14").check().knows_flags

    def test_one_that_says_no_version_is_taken_for_a_new_one(self, caplog):
        assert _Server("?").check().knows_flags
        assert "does not say its version" in caplog.text

    @pytest.mark.parametrize("version", ["6.0.16", "5.0.3"])
    def test_older_ones_are_refused(self, version):
        with pytest.raises(ConfigurationError, match=re.escape(f"version {version}")):
            _Server(version).check()

    def test_a_server_without_a_log_warns(self):
        with pytest.warns(checks.DurabilityWarning, match="here:1 has appendonly no"):
            _Server(appendonly="no").check()

    @pytest.mark.parametrize(
        "settings",
        [{"appendonly": "no", "appendfsync": "always"}, {"appendonly": "no"}],
    )
    def test_fsync_is_demanded(self, settings):
        with pytest.raises(ConfigurationError, match="appendfsync always"):
            _Server(**settings).check(Durability.FSYNC)

    @pytest.mark.parametrize("fsync", ["no", "everysec"])
    def test_fsync_is_demanded_of_an_old_server(self, fsync):
        with pytest.raises(ConfigurationError, match="appendfsync always"):
            _Server("7.0.15", appendfsync=fsync).check(Durability.FSYNC)

    def test_fsync_cannot_do_without_any(self):
        with pytest.raises(ConfigurationError, match="appendfsync always"):
            _Server("7.2.4", appendfsync="no").check(Durability.FSYNC)

    @pytest.mark.parametrize("version", ["6.2.14", "7.2.4", "?"])
    def test_fsync_is_found(self, version):
        facts = _Server(version, appendfsync="always").check(Durability.FSYNC)

        assert not facts.waits_for_disk

    @pytest.mark.parametrize("version", ["7.2.4", "8.0.0"])
    def test_fsync_is_asked_for_where_the_server_can_be(self, version):
        assert _Server(version).check(Durability.FSYNC).waits_for_disk
        assert not _Server(version).check().waits_for_disk

    def test_fsync_of_a_server_that_tells_nothing_is_tried(self):
        with pytest.raises(ConfigurationError, match="WAITAOF"):
            _Server("?").check(Durability.FSYNC)

    @pytest.mark.parametrize("confirms", [0, 1])
    def test_what_is_not_on_disk_is_not_answered(self, confirms):
        server, keys = _Server(), Keys("n")
        server.confirms, scripted = confirms, []

        def answer(effect):
            scripted.append([one[0] for one in effect.commands])
            return [b"done", *map(server.answer, effect.commands[1:])]

        steps = call(EXCHANGE, keys, [b"x"], flagged=True, confirmed=True)
        if confirms:
            assert drive(steps, answer) == b"done"
        else:
            with pytest.raises(StoreUnavailableError, match="disk"):
                drive(steps, answer)
        assert scripted == [["EVALSHA", "WAITAOF"]]

    def test_eviction_is_refused(self):
        with pytest.raises(ConfigurationError, match="noeviction"):
            _Server(maxmemory="100", maxmemory_policy="allkeys-lru").check()

    def test_eviction_that_cannot_come_is_noted(self, caplog):
        _Server(maxmemory_policy="allkeys-lru").check()

        assert "set noeviction" in caplog.text

    @pytest.mark.parametrize("version", ["6.2.14", "7.0.15"])
    def test_a_version_that_may_not_be_read_is_found_otherwise(self, version, caplog):
        server = _Server(version)
        server.refusal = driver.NoPermissionError("this user has no permissions to run 'info'")

        assert server.check().knows_flags == (version == "7.0.15")
        assert not caplog.records

    @pytest.mark.parametrize(
        "refusal",
        [
            driver.AuthenticationError("invalid username-password pair"),
            driver.ResponseError("WRONGPASS invalid username-password pair"),
            driver.ResponseError("NOAUTH Authentication required."),
        ],
    )
    def test_a_wrong_password_is_the_only_thing_said(self, refusal, caplog):
        server = _Server()
        server.refusal = refusal
        with pytest.raises(ConfigurationError, match="password"):
            server.check()

        assert not caplog.records

    def test_settings_that_may_not_be_read_are_noted(self, caplog):
        server = _Server()
        server.forbidden = True
        with caplog.at_level("INFO"):
            server.check()

        assert "does not let its settings be read" in caplog.text

    def test_a_namespace_is_fused_or_paired(self):
        server, facts, keys = _Server(), checks.Facts("here:1"), Keys("n")
        server.drive(check_format(facts.where, keys, paired=False))
        server.drive(check_format(facts.where, keys, paired=False))

        with pytest.raises(ConfigurationError, match="another namespace"):
            server.drive(check_format(facts.where, keys, paired=True))

    def test_a_later_format_is_refused(self):
        server = _Server()
        server.format = b"9 fused"
        with pytest.raises(ConfigurationError, match="Upgrade"):
            server.drive(check_format("here:1", Keys("n"), paired=False))


class TestConsuming:
    def test_a_group_that_is_lost_as_soon_as_it_is_made_is_made_at_the_next_look(self):
        """FLUSHALL may come in between; to give up would stop the worker."""
        consuming = Consuming(Keys("n"), checks.Facts("here"), "me")
        asked = []

        def perform(effect):
            ((name, *_),) = effect.commands
            asked.append(name)
            if name in {"XREADGROUP", "XAUTOCLAIM"}:
                raise NoGroupError
            return [0]

        assert drive(consuming.receive(["a"], 5, 0.0), perform) == []
        assert asked[-3:] == ["XREADGROUP", "XGROUP", "XREADGROUP"]


class _Deaf:
    """A line that the other end has forgotten."""

    is_open = True
    connection = None

    async def ask(self, commands, deadline):
        async with asyncio.timeout_at(deadline):
            await asyncio.Event().wait()

    async def close(self):
        pass


class _BlockingDeaf:
    is_open = True
    connection = None

    def ask(self, commands):
        raise TimeoutError("timed out")

    def close(self):
        pass


class TestLinks:
    """Of several connections that went deaf together, only the first is waited for."""

    def test_asyncio(self):
        async def main():
            links = Links(Target(where="here", timeout=0.05))
            links._loop, links._room = asyncio.get_running_loop(), asyncio.Semaphore(2)
            links._idle = [_Deaf(), _Deaf(), _Deaf()]
            with pytest.raises(StoreUnavailableError):
                await links.ask([("PING",)])
            return links._idle

        assert asyncio.run(main()) == []

    def test_threads(self):
        links = BlockingLinks(Target(where="here", timeout=0.05))
        links._idle = [_BlockingDeaf(), _BlockingDeaf(), _BlockingDeaf()]
        with pytest.raises(StoreUnavailableError):
            links.ask([("PING",)])

        assert links._idle == []
