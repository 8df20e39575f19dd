"""The Lua scripts: constant text, read from this package once.

A script is the library it needs and its own entry point, in one piece. From Redis 7.0 on a line
`#!lua flags=…` is put before it: the server then refuses a script that may need memory before it
has run a single command, and lets those flagged `allow-oom` drain a full server. Redis 6.2 knows no
such line; there a script is refused at its first write if that may need memory, so ours begin with
one that may, and those that drain a server with one that may not. See
https://redis.io/docs/latest/develop/programmability/eval-intro/#eval-flags.

A script makes all its functions anew each time that it is run, which takes as long as to commit a
call. Redis 7.0 and later can keep them: there the two scripts that run all the time are functions of
libraries, named by their text. See
https://redis.io/docs/latest/develop/programmability/functions-intro/.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files

import attrs

__all__ = [
    "ADVANCE",
    "DRAIN",
    "EXCHANGE",
    "PUBLISH",
    "READ",
    "RELEASE",
    "SETTLE",
    "START",
    "TIDY",
    "WAITING",
    "Script",
    "source",
]


@cache
def source(name: str) -> str:
    """Return a file as it is written."""
    return files("pwf_redis").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


@attrs.frozen
class Script:
    """One atomic act.

    Attributes:
        parts: Names of the files that make it up, in order.
        flags: What the server may be told of it.
        is_kept: Whether a server that can is to keep it as a function; it is `main` then, and what
            it changes outside of that, `main` sets at its beginning.
    """

    parts: tuple[str, ...]
    flags: str = ""
    is_kept: bool = False

    def text(self, *, flagged: bool) -> bytes:
        """Return the script's text, with its flags if the server knows them."""
        return _text(self, flagged=flagged)

    def sha(self, *, flagged: bool) -> bytes:
        """Return the name by which a server that has it knows it."""
        return _sha(self, flagged=flagged)

    @property
    def function(self) -> bytes:
        """The name of its function, and of the library that has only that."""
        return _function(self)

    @property
    def library(self) -> bytes:
        """The text of its library."""
        return _library(self)


# A write that needs no memory, of a key that nobody has: to the server the script has begun to write.
_ALLOW_OOM = "redis.call('UNLINK', KEYS[1] .. ':')\n"


def _body(script: Script) -> str:
    return _fold("\n".join(source(name) for name in script.parts))


@cache
def _text(script: Script, *, flagged: bool) -> bytes:
    body = _nest(_body(script))
    if not flagged:
        return (_ALLOW_OOM * (script.flags == "allow-oom") + body).encode()
    flags = f" flags={script.flags}" if script.flags else ""
    return f"#!lua{flags}\n{body}".encode()


@cache
def _sha(script: Script, *, flagged: bool) -> bytes:
    # Not for security: it is how Redis names scripts.
    return sha1(_text(script, flagged=flagged), usedforsecurity=False).hexdigest().encode()


@cache
def _function(script: Script) -> bytes:
    return f"pwf_{script.parts[-1]}_".encode() + _sha(script, flagged=False)


# What a library does when it is loaded may use next to nothing, so it makes its functions in its first call.
_LIBRARY = """#!lua name={name}
local KEYS, ARGV, main
local function make()
{body}
end
redis.register_function('{name}', function(keys, args)
  KEYS, ARGV = keys, args
  main = main or make()
  return main()
end)
"""


@cache
def _library(script: Script) -> bytes:
    body = _body(script)
    assert body.endswith("\nreturn main()\n"), "a script that is kept ends with its main function"
    return _LIBRARY.format(name=_function(script).decode(), body=body[:-3]).encode()


# `local NAME, NAME = number, number`, over any lines; and what is not code.
_CONSTANTS = re.compile(r"^local ([A-Z_]+(?:,\s+[A-Z_]+)*)\s+=\s+(\d+(?:,\s+\d+)*)$", re.MULTILINE)
_WORDS = re.compile(r"'[^'\n]*'|--[^\n]*|\b[A-Z][A-Z_]*\b")


def _fold(text: str) -> str:
    """Write the numbers where their names are used; lines stay where they are.

    Lua has no constants. A local that a function uses is an upvalue, and to bind those each time a
    script is run took longer (0.1 ms) than most of what it then does.
    """
    numbers: dict[str, str] = {}

    def note(definition: re.Match[str]) -> str:
        names, values = (re.split(r",\s+", part) for part in definition.groups())
        numbers.update(zip(names, values, strict=True))
        return "\n" * definition[0].count("\n")

    text = _CONSTANTS.sub(note, text)
    return _WORDS.sub(lambda word: numbers.get(word[0], word[0]), text)


_CHAPTER = re.compile(r"^(?=--== .* =+$)", re.MULTILINE)


def _nest(text: str) -> str:
    """Make each chapter a function within the one before; lines stay where they are.

    A function takes up a local of the block around it by walking through all that any function has
    taken up there so far: with a hundred functions in one block, that was half the time of a script
    that finds little to do. What comes from further out is handed on without a walk. A chapter may
    use 60 locals of those before it, which is a limit of Lua's; a server refuses scripts beyond it.
    """
    nested, chapters = _CHAPTER.subn("return (function() ", text.rstrip("\n"))
    return nested + " end)()" * chapters + "\n"


START = Script(("request", "messages", "start"), is_kept=True)
EXCHANGE = Script(
    ("request", "messages", "runs", "transition", "joins", "rare", "exchange"), is_kept=True
)
# The same for commands that free at least what they take. A full server does not take libraries.
DRAIN = attrs.evolve(EXCHANGE, flags="allow-oom", is_kept=False)
READ = Script(("read",), "no-writes")
ADVANCE = Script(("advance",))

# Of the plain broker.
PUBLISH = Script(("publish",))
SETTLE = Script(("settle",), "allow-oom")
RELEASE = Script(("release",), "allow-oom")
TIDY = Script(("tidy",), "allow-oom")
WAITING = Script(("waiting",), "no-writes")
