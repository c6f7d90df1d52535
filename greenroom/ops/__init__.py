"""The ops process: the page, /metrics and the verdict, outside the workers, so that it answers when they can't.

in the arbiter   supervisor       starts it, starts it again when it dies, stops it
                 endings          how workers ended: signal, exit code, what failed at boot
in the worker    worker_server    a thread that answers while the loop is blocked
                 socket_folder    where its unix socket lies
in the process   program          joins the parts below; log_file: its lines in gunicorn's error log
  once a second  collect          asks all workers (worker_client), the scoreboard, and the system for their processes
                 counters         totals that outlive workers and never fall
                 native_line      the line in C code that keeps the GIL
                 limits, sights   the machine's limits; errors, upstreams, locks, clients of all workers
                 leaks            threads, greenlets and children that requests leave behind
  the view       view             what is shown, as one dict; latency: percentiles; usual: each route's last hour
                 together         sums over all workers; saturation: a bar for each thing that can be full
                 verdicts/        what is wrong, in sentences: small rules over the view; settling: when they are told
                 shapes           the types of these documents
                 incidents        from verdicts to a beginning and an end; webhooks tells about them
                 history, hours   seven days on disk
                 recorder, report the minute before a spike, as one HTML file
                 peers            the verdicts of other hosts
  served by web  access           who may ask
                 metrics, metrics_of_causes, openmetrics    for Prometheus
                 text_report      everything as text; static/: the page's files
in a terminal    commands         `greenroom ops`, `top`, `stacks`
                 client           asks the running ops process
                 top, plain_top   with and without rich; keys: single keys
"""
