"""Upstream HTTP: what `requests` sends its requests with, when `greenroom.patching` has installed it.

    requests.get / Session.send -> HTTPAdapter.send, replaced -> is it plain?  no: requests' own goes on, unseen
        yes -> Origin.take: a kept connection, or leave to open one
            -> Connection: request out, head in
            -> Answer, a urllib3 response -> body read to its end -> Origin.give_back

One pool per origin and process serves all sessions and the bare `requests.get()`: a connection carries no cookies and
no credentials, sessions keep theirs. Calls that are not clear-cut (proxies, `Retry`, adapters of the caller's own,
strange URLs) go the way they always went.

install        what is replaced in `requests`; hooked: where somebody else has replaced something, theirs is used
adapter        HTTPAdapter.send; fast_path: Session.request in one step; memo: what `requests` need not work out again
transport      one request and the head of its answer; retrying: a mounted `Retry`
pool           origins and their connections: connection, reader, head, answer, tls; origin_name: how errors call one
cookies, logins, tracing    what belongs to a session, a connection, a trace
"""
