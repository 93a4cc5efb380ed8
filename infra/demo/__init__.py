"""`./justw demo`: the whole topology on this machine, for as long as one watches.

    topology   what runs, in which order it starts and stops
    figures    what is going on, asked of the database, the log, the dead letter and the fleet: of nobody's memory
    view       the figures as lines, for a terminal of any size; pure
    screen     where the lines go: a live terminal, or plain lines in a file

Guarantee: when it ends, by itself, by Ctrl-C, by SIGTERM or by an error, nothing that it started runs or listens on.
"""
