"""A simulated fleet: devices with drift, a daily shape, noise and faults, publishing over real MQTT 5 at QoS 1.

    plan ─▶ signals, faults ─▶ stream ─(messages in the order they are due)─▶ run ─▶ publisher ─MQTT─▶ broker
                                                                             └──▶ record: what was sent, exactly

Rule: everything up to the stream is a pure function of the plan (its seed, the device, the time), so the same
plan says the same however its time is cut; only ``run`` has a clock and only ``publisher`` a socket. The fleet
shares no code with the connectors it feeds: what it measures cannot cancel out what they get wrong.
"""
