"""What a worker is doing, as one dict that JSON can carry.

`snapshot(worker)` works from the watch thread while the hub is stuck: it takes no lock and only reads what the hub's
thread writes, again if that changed under its hands. Without insight (GREENROOM_INSIGHT=no) the parts that need it
are empty. Times are seconds; lengths since the worker's start unless said otherwise. Each list of seconds by state is
in the order of `states`. Everything that counts is monotonic for one `start_id`.

    version          int, 1
    start_id         str: this worker's life; counters begin at 0 with each
    pid              int
    started_at       Unix time
    age_seconds
    states           ["cpu", "ready", "upstream", ...]
    worker           state ("serving", ...), requests, connections, in_flight, queued (in line now),
                     limit_requests (0: adaptive), load, load_limit, cost_seconds, rss_bytes,
                     shed_full_requests, shed_late_requests, queued_requests, accepted
    loop             is_idle, current_turn_seconds (how long the loop has not turned; 0.0 while it idles), turns,
                     busy_seconds, idle_seconds, last_turn_seconds, late_turns (longer than the threshold),
                     hub_seconds, request_seconds, background_seconds (greenlets of no request),
                     stolen_seconds (the thread was ready and the machine ran somebody else)
    seconds          [by state], all finished requests
    le               upper bounds of the latency buckets, seconds; the last is null (no bound)
    routes           {pattern: {count, statuses: {"2xx": n, ...}, seconds: [by state], total_seconds,
                     buckets: [n for each of le], bands: {"<bucket index>": [seconds by state]},
                     cut (deadline spent or client gone)}}; "other": no pattern known
    upstreams        {"host:port": {waits, seconds}}; what is beyond 200 hosts is in "other"
    pools            [{name, size, in_use, waiting, ...}] as the pools themselves say
    stalls           total, seconds, unblamed (stopped or stolen: nobody's fault), current: None or {seconds, request,
                     route, line, stack}, top: [{line, count, seconds, longest_seconds, route, last_at}] by seconds,
                     last: [{at, seconds, stolen_seconds, line, stack, request, route, holds_gil}] newest first
    held             [{checkout, used, upstream, host, count, seconds, rate, rate_released, gain, route}]
    locks            deadlocks: [{since_seconds, is_cycle, members: [{request, route, lock, waits_for, stack}]}]
    greenlets        count, by_spawner: {"file:line": n} (most first, bounded)
    in_flight        [{id, route, method, path, age_seconds, state, detail, state_seconds, budget_seconds (null: none),
                     is_cut, seconds: [by state], waits: [{kind, detail, seconds}], greenlets}] oldest first, bounded;
                     `path` without its query
    in_flight_states {state: n}, in_flight_routes {route: n}: all of them, also beyond the bound

`stacks(worker, request_id)` -> {"id", "greenlets": [{"name", "state", "stack": ["file:line function", ...]}]}, with the
innermost call first; None when there is no such request any more.
"""
