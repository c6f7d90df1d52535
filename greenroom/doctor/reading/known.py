"""Facts about other packages for the rules: which calls wait, take a timeout, make clients, or can't wait at all."""

import re
from typing import NamedTuple

# Calls of HTTP clients: dotted name, as project.dotted() writes it.
HTTP = re.compile(
    r"(?:requests\.(?:get|post|put|patch|delete|head|options|request|(?:sessions\.)?[Ss]ession\(\)\.(?:get|post|put|patch"
    r"|delete|head|options|request|send))|urllib\.request\.(?:urlopen|urlretrieve|build_opener\(\)\.open)"
    r"|urllib3\.(?:request|PoolManager\(\)\.(?:request|urlopen)|HTTPS?ConnectionPool\(\)\.(?:request|urlopen))"
    r"|http\.client\.HTTPS?Connection(?:\(\)\.(?:request|getresponse))?"
    r"|httpx\.(?:get|post|put|patch|delete|head|options|request|stream|Client\(\)\.(?:get|post|put|patch|delete|head"
    r"|options|request|send|stream))"
    r"|smtplib\.SMTP(?:_SSL)?(?:\(\)\.(?:send_message|sendmail))?|ftplib\.FTP(?:_TLS)?|imaplib\.IMAP4(?:_SSL)?"
    r"|poplib\.POP3(?:_SSL)?|socket\.create_connection|xmlrpc\.client\.ServerProxy|telnetlib\.Telnet"
    r"|boto3\.(?:client|resource)\(\)\..*|stripe\..*\.(?:create|retrieve|list)|paramiko\.SSHClient\(\)\.connect"
    r"|zeep\.Client)"
)
# Those of them that wait for ever unless they are told for how long: pattern -> position of `timeout` (None: keyword).
ENDLESS: list[tuple[re.Pattern[str], int | None]] = [
    (re.compile(r"requests\.(?:get|post|put|patch|delete|head|options|request)"), None),
    (
        re.compile(r"requests\.(?:sessions\.)?[Ss]ession\(\)\.(?:get|post|put|patch|delete|head|options|request|send)"),
        None,
    ),
    (re.compile(r"urllib\.request\.urlopen"), 2),
    (re.compile(r"urllib3\.request|urllib3\.PoolManager\(\)\.(?:request|urlopen)"), None),
    (re.compile(r"urllib3\.HTTPS?ConnectionPool\(\)\.(?:request|urlopen)"), None),
    (re.compile(r"http\.client\.HTTPS?Connection"), 2),
    (re.compile(r"smtplib\.SMTP(?:_SSL)?"), 3),
    (re.compile(r"ftplib\.FTP(?:_TLS)?"), 4),
    (re.compile(r"imaplib\.IMAP4(?:_SSL)?"), None),
    (re.compile(r"poplib\.POP3(?:_SSL)?"), 2),
    (re.compile(r"socket\.create_connection"), 1),
    (re.compile(r"telnetlib\.Telnet"), 2),
]
# Clients that have a timeout of their own, which can be taken away.
TIMEOUT_NONE = re.compile(r"(?:httpx\.|requests\.|urllib\.request\.|urllib3\.|aiohttp\.)")

# Clients that are made once: constructor -> what it is called in a sentence.
CLIENTS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"requests\.(?:sessions\.)?[Ss]ession"), "a requests.Session"),
    (re.compile(r"httpx\.(?:Async)?Client"), "an httpx client"),
    (re.compile(r"urllib3\.PoolManager"), "a urllib3.PoolManager"),
    (re.compile(r"aiohttp\.ClientSession"), "an aiohttp session"),
    (re.compile(r"(?:sqlalchemy\.)(?:.*\.)?create_engine"), "an SQLAlchemy engine"),
    (re.compile(r"(?:psycopg2\.pool\..*Pool|psycopg_pool\.ConnectionPool)"), "a pool of connections"),
    (re.compile(r"(?:psycopg2|psycopg|pymysql|MySQLdb|mysql\.connector)\.connect"), "a database connection"),
    (re.compile(r"redis\.(?:Redis|StrictRedis|from_url|Redis\.from_url|ConnectionPool.*)"), "a Redis client"),
    (re.compile(r"pymongo\.(?:mongo_client\.)?MongoClient"), "a MongoClient"),
    (
        re.compile(r"boto3\.(?:client|resource|(?:session\.)?Session|Session\(\)\.(?:client|resource))"),
        "a boto3 client",
    ),
    (re.compile(r"elasticsearch\.Elasticsearch|opensearchpy\.OpenSearch"), "a search client"),
    (re.compile(r"grpc\.(?:insecure|secure)_channel"), "a gRPC channel"),
    (re.compile(r"kafka\.Kafka(?:Producer|Consumer)|confluent_kafka\.Producer"), "a Kafka client"),
    (re.compile(r"pika\.BlockingConnection"), "a RabbitMQ connection"),
    (re.compile(r"google\.cloud\.\w+\.Client"), "a Google Cloud client"),
    (re.compile(r"azure\..*Client(?:\.from_connection_string)?"), "an Azure client"),
    (re.compile(r"(?:openai\.OpenAI|anthropic\.Anthropic)"), "an API client"),
    (re.compile(r"(?:pymemcache\.client(?:\.base)?\.Client|memcache\.Client|pylibmc\.Client)"), "a memcached client"),
]
CONNECTS = re.compile(
    r"(?:psycopg2|psycopg|pymysql|MySQLdb|mysql\.connector|sqlite3|oracledb|pymssql|pyodbc|cx_Oracle|pg8000)"
    r"(?:\.dbapi2?)?\.(?:connect|Connection|Connect|Connection\.connect)"
)
RELEASES = re.compile(r".*\.(?:commit|rollback|close|remove|expunge_all|invalidate|dispose|putconn)")
SLEEPS = re.compile(r"(?:time|gevent)\.sleep")
WAITS = re.compile(
    r"(?:time\.sleep|gevent\.sleep|subprocess\.(?:run|call|check_call|check_output|Popen\(\)\.(?:wait|communicate)))"
)
DATABASE_WAITS = re.compile(r".*\.(?:execute|executemany|scalars?|fetchone|fetchall)$")


class Driver(NamedTuple):
    """A package that waits in C. `level`: how bad it is where Greenroom can't help by itself."""

    name: str
    why: str
    do: str
    level: str = "error"


def _offload(names: str) -> str:
    return f"or let its calls wait in threads: GREENROOM_OFFLOAD_DRIVERS={names}"


_MYSQL = _offload('"MySQLdb.connect, MySQLdb.connections.Connection.*, MySQLdb.cursors.Cursor.*"')
DRIVERS: dict[str, Driver] = {
    "MySQLdb": Driver(
        "mysqlclient",
        "waits in libmysqlclient",
        f"PyMySQL waits in the loop and speaks the same protocol (`mysql+pymysql://`); {_MYSQL}.",
    ),
    "_mysql": Driver("mysqlclient", "waits in libmysqlclient", "PyMySQL waits in the loop (`mysql+pymysql://`)."),
    "cx_Oracle": Driver(
        "cx_Oracle",
        "waits in Oracle's client library",
        "oracledb in thin mode is plain Python and waits in the loop (`oracle+oracledb://`); "
        + _offload('"cx_Oracle.connect"')
        + ".",
    ),
    "pymssql": Driver(
        "pymssql",
        "waits in FreeTDS",
        "python-tds (`mssql+pytds://`) is plain Python and waits in the loop; "
        + _offload('"pymssql.connect, pymssql._pymssql.Connection.*, pymssql._pymssql.Cursor.*"')
        + ", through functions of your own where a class is written in C.",
    ),
    "pyodbc": Driver(
        "pyodbc",
        "waits in the ODBC driver",
        "wrap the calls in functions of your own and name these in GREENROOM_OFFLOAD_DRIVERS (pyodbc's classes are "
        "written in C), or use a driver in plain Python: python-tds for SQL Server.",
    ),
    "cassandra": Driver(
        "cassandra-driver",
        "runs an event loop of its own in C or in a thread",
        "`Cluster(connection_class=cassandra.io.geventreactor.GeventConnection)`, which waits in gevent's loop.",
    ),
    "grpc": Driver(
        "grpcio",
        "waits in its C core, in threads that gevent does not know",
        "call `grpc.experimental.gevent.init_gevent()` before the first channel is made.",
    ),
    "confluent_kafka": Driver(
        "confluent-kafka",
        "waits in librdkafka",
        "produce() returns at once: keep that, and leave poll() and flush() to a thread of their own or name them in "
        "GREENROOM_OFFLOAD_DRIVERS; consume in a process of its own. kafka-python waits in the loop.",
    ),
    "ibm_db": Driver("ibm_db", "waits in IBM's client library", _offload('"ibm_db.*"').removeprefix("or ") + "."),
    "pylibmc": Driver("pylibmc", "waits in libmemcached", "pymemcache is plain Python and waits in the loop."),
    "pysqlcipher3": Driver("pysqlcipher3", "waits in C", "Name its calls in GREENROOM_OFFLOAD_DRIVERS."),
    "fdb": Driver("fdb", "waits in the Firebird client library", "Name its calls in GREENROOM_OFFLOAD_DRIVERS."),
    "snap7": Driver("snap7", "waits in C", "Name its calls in GREENROOM_OFFLOAD_DRIVERS."),
    "pycurl": Driver("pycurl", "waits in libcurl", "Use requests, which waits in the loop."),
    "pq": Driver("pq", "waits in C", "Use psycopg2.", "warning"),
    "duckdb": Driver("duckdb", "computes in C", '`GREENROOM_OFFLOAD="duckdb.sql, duckdb.query"`.', "warning"),
}
# Dialects of SQLAlchemy whose driver is one of these, by the beginning of the URL.
URLS: dict[str, str] = {
    "mysql://": "MySQLdb",
    "mysql+mysqldb://": "MySQLdb",
    "mssql+pyodbc://": "pyodbc",
    "mssql://": "pyodbc",
    "mssql+pymssql://": "pymssql",
    "oracle://": "cx_Oracle",
    "oracle+cx_oracle://": "cx_Oracle",
    "db2+ibm_db://": "ibm_db",
    "access+pyodbc://": "pyodbc",
}
# Django's.
ENGINES: dict[str, str] = {
    "django.db.backends.mysql": "MySQLdb",
    "django.db.backends.oracle": "cx_Oracle",
    "mssql": "pyodbc",
    "sql_server.pyodbc": "pyodbc",
}
