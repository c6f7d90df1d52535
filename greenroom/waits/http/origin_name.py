"""The name of an origin in the errors of `requests`."""


class OriginName:
    """An origin as urllib3's errors name a connection to it."""

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return f"{self.scheme.upper()}Connection(host={self.host!r}, port={self.port!r})"

    def __repr__(self) -> str:
        return f"<{self} at {id(self):#x}>"
