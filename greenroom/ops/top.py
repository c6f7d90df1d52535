"""The view in a terminal."""

from .client import Client


def run(client: Client) -> int:
    print(client.view()["verdict"]["sentence"])
    return 0
