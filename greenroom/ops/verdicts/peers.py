"""The kind of a peer, by its protocol's usual port and the library that speaks to it; and the lines that call it."""

from collections.abc import Iterable, Mapping
from typing import Any

BY_PORT = {
    "25": "The mail server",
    "465": "The mail server",
    "587": "The mail server",
    "1025": "The mail server",
    "3306": "MySQL",
    "5432": "PostgreSQL",
    "5672": "RabbitMQ",
    "6379": "Redis",
    "9092": "Kafka",
    "9200": "Elasticsearch",
    "11211": "memcached",
    "27017": "MongoDB",
    "389": "The LDAP server",
}
BY_LIBRARY = {
    "redis": "Redis",
    "flask_session": "Redis",
    "smtplib": "The mail server",
    "pymysql": "MySQL",
    "MySQLdb": "MySQL",
    "mysql": "MySQL",
    "psycopg": "PostgreSQL",
    "psycopg2": "PostgreSQL",
    "pika": "RabbitMQ",
    "amqp": "The message broker",
    "kombu": "The message broker",
    "pymemcache": "memcached",
    "bmemcached": "memcached",
    "pymongo": "MongoDB",
    "elasticsearch": "Elasticsearch",
    "elastic_transport": "Elasticsearch",
    "ldap3": "The LDAP server",
    "kafka": "Kafka",
    "botocore": "AWS",
    "grpc": "The gRPC server",
    "imaplib": "The mail server",
    "ftplib": "The FTP server",
}


def name_of(host: str, lines: Iterable[Mapping[str, Any]] = (), other: str = "Upstream") -> str:
    """ "Redis at 127.0.0.1:6379", or "Upstream 127.0.0.1:9000" where nothing says what it is."""
    what = next((BY_LIBRARY[line["library"]] for line in lines if line.get("library") in BY_LIBRARY), "")
    what = what or BY_PORT.get(host.rpartition(":")[2], "")
    return f"{what} at {host}" if what else f"{other} {host}"


def callers(lines: Iterable[Mapping[str, Any]], most: int = 2) -> str:
    """Which lines call: "app.py:9 (/rates)"."""
    found: dict[str, None] = {}
    for line in lines:
        if line.get("line"):
            route = line.get("route") or "other"
            found[f"{line['line']} ({route})" if route != "other" else str(line["line"])] = None
    return " and ".join(list(found)[:most])


def routes(lines: Iterable[Mapping[str, Any]], most: int = 3) -> str:
    found = dict.fromkeys(str(line["route"]) for line in lines if line.get("route") not in (None, "", "other"))
    return ", ".join(list(found)[:most])
