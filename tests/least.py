"""Users who may do no more than pwf needs, on both servers, as docs/deployment.md has them made."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

__all__ = [
    "PASSWORD",
    "as_user",
    "blocks",
    "rabbit_definitions",
    "rabbit_rights",
    "redis_rules",
    "redis_user",
]

PASSWORD = "hunter2zq"  # found in nothing else
_PAGE = Path(__file__).parents[1] / "docs" / "deployment.md"


def blocks(language):
    """Return what stands in docs/deployment.md between the fences of that language."""
    fenced = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return fenced.findall(_PAGE.read_text(encoding="utf-8"))


def redis_rules(namespace, commands):
    """Return the rules of `ACL SETUSER` for who may run *commands* in *namespace*."""
    keys = f"pwf:{{{namespace}:*}}:*"
    return [
        f"~{keys}",
        "resetchannels",
        f"&{keys}",
        "-@all",
        *(f"+{command}" for command in commands),
    ]


def redis_user(url, namespace, commands, name="worker"):
    """Make a user on the server at *url*, and return the URL by which it connects."""
    from redis import Redis

    with Redis.from_url(url) as admin:
        rules = redis_rules(namespace, commands)
        admin.execute_command("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", *rules)
    return as_user(url, name)


def rabbit_rights(namespace):
    """Return what a user of *namespace* may configure, write and read."""
    return "^$", r"^amq\.default$", rf"^pwf\.{namespace}\..*"


def rabbit_definitions(name="worker"):
    """Return what makes RabbitMQ begin with such a user of all namespaces, beside its usual one."""
    configure, write, read = rabbit_rights(".*")
    definitions = {
        "users": [
            {"name": "guest", "password": "guest", "tags": "administrator"},
            {"name": name, "password": PASSWORD, "tags": ""},
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [
            {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
            {"user": name, "vhost": "/", "configure": configure, "write": write, "read": read},
        ],
    }
    return json.dumps(definitions)


def as_user(url, name, password=PASSWORD):
    """Return *url* with that name and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{host}"))
