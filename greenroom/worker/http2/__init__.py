"""HTTP/2 over any transport: one connection in the hub, each of its streams a request like any other.

    connection   frames in and out; what a client may flood us with; the end of the connection
    engine       the h2 library, with what it has to be told
    compression  header fields to bytes and back, remembered
    outgoing     what is to be sent, and a client that does not take it
    frames       where frames begin, how many come at once, and how many of them carry nothing
    heads        the head of a stream: header fields in, a request and its environ out
    stream       one exchange: its body, its answer, its end
    response     the WSGI response, written as frames
    cleartext    HTTP/2 without TLS (gunicorn's http2_cleartext)

Needs the h2 package, which gunicorn demands at the start when http_protocols names h2.
"""
