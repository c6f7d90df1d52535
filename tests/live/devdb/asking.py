"""Asks the embedded PostgreSQL."""

import psycopg2

MAY_FORK = "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()
