"""`./justw chaos`: break everything at random while a fleet publishes, then show that nothing was lost.

    schedule.py         what is broken when: a pure function of the seed
    acts.py             does it
    relay.py            the wires between flows and servers, which can be cut, stalled and refused
    kafka_addresses.py  what such a wire understands of Kafka
    flows.py            the dataflows as processes: killed, frozen, rescaled, started twice, and started again
    supervised.py       the same under ./justw run
    bound.py            what binds a process to the life of chaos
    servers.py          the servers: embedded ones, or given ones
    place.py            names and settings of a run
    asking.py           how far flows and log are
    run.py              one run, from the fleet's first message to the last comparison
    comparison.py       the table, and all that goes with it, against an undisturbed run over the same log
    flags.py            the same for flags, episodes and alerts
    other_log.py        another log under the old name, which must be refused

Rule: connectors and dataflows are run as they are, as processes of their own; they know nothing of this.
"""
