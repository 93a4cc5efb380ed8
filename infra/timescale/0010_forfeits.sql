-- What was given up by hand, and what was sent again by hand: both are to be explained for ever.

-- Offsets of a log that a flow will never account for, by an operator's decision (./justw forfeit). With them
--     position - start = messages + ticks + refused + gaps + forfeited
create table forfeits (
    flow      text        not null,
    topic     text        not null,
    partition int         not null,
    at        timestamptz not null default clock_timestamp(),
    reason    text        not null,
    first     bigint      not null,
    next      bigint      not null,
    topic_id  text        not null,
    before    jsonb       not null,
    by        text        not null,
    primary key (flow, topic, partition, at)
);
comment on column forfeits.first is 'The first offset given up; with next the same, none was, and only the log was accepted as it is.';
comment on column forfeits.next is 'The first offset after them: where the flow goes on.';
comment on column forfeits.topic_id is 'Of the log that the offsets are of.';
comment on column forfeits.before is 'The progress as it stood.';

alter table ledger add forfeited bigint not null default 0;
comment on column ledger.forfeited is 'Offsets given up by ./justw forfeit, or renumbered by a log made again; forfeits has each decision.';

-- Dead letters that were decoded again and sent to the log (./justw redrive): each once.
create table redriven (
    topic     text        not null,
    topic_id  text        not null,
    partition int         not null,
    "offset"  bigint      not null,
    records   int         not null,
    sent      boolean     not null default false,
    log_ends  jsonb       not null,
    at        timestamptz not null default now(),
    primary key (topic, topic_id, partition, "offset")
);
comment on column redriven.sent is
    'False where a redrive was killed: whether its records are in the log is then read from log_ends on.';
comment on column redriven.log_ends is 'Ends of the log''s partitions before the records were sent.';
