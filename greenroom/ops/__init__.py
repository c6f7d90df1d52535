"""The ops process: what goes on in the workers, on a page of its own, when they can't answer any more.

arbiter   supervisor    starts it again when it dies, stops it
worker    worker_server a thread that says what goes on, also while the loop is blocked
          (insight.recent remembers the last 60 seconds, for the flight recorder)
process   program     joins the parts below
          collect  -> counters    asks everybody, once a second; what they counted outlives them
          view     -> verdict     what the page shows, and the one sentence at its top
          metrics                 the same for Prometheus
          recorder -> report      keeps what the workers remember when something spikes
          text_report             everything as text
          web      -> access      the page, its events, who may see it
terminal  client   -> top, stacks
"""
