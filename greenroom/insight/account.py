"""One request's time, each moment of it in exactly one state, and so adding up to its total.

A request is what its greenlet does and what greenlets and threads do that it started. Its state is the first of these
that is true:

    cpu      one of them runs
    ready    one of them could run, and waits for its turn in the loop
    kind     what they wait for: the main greenlet's wait, or if that waits for the others (a lock, a join), theirs

Time is charged when one of them begins or ends a slice, so that costs nothing while they wait. What was waited for is
known when a slice ends. When the next one begins, the time between is split in the moment the greenlet became ready:

    the loop idled before this turn     it became ready when the loop woke: exact
    the loop was busy                   it came while the last turn ran, and nobody saw when: its middle is right on
                                        average, wrong by half a turn at most
    it ended its last slice since then  at once: it was never waiting, or whoever woke it ran in this turn

cpu is measured on the wall clock, as the admission does it (see worker/load.py); what is known to have been stolen from
the process in a long slice is taken out again (see stalls).
"""

# The order of Account.seconds, and of each list of seconds by state anywhere in insight.
STATES = ("cpu", "ready", "upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other")
