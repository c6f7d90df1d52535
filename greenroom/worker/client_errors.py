"""Mistakes of clients while their request runs. None of them is an error of the application's own connections."""


class ClientLeft(ConnectionError):
    """The client has closed the connection, or its network did."""


class BodyCutShort(ClientLeft):
    """The client ended its side within the body: what came of it must not be taken for all of it (RFC 9112 8)."""


class BodyMalformed(ClientLeft):
    """The body is not what HTTP allows: the size of a chunk is no number, say. Where it ends is not known."""


class ClientTooSlow(TimeoutError):
    """The client took nothing of the answer for as long as the settings allow."""


class BodyTooSlow(ClientTooSlow):
    """The rest of the body did not come, or came too slowly."""
