-- What was given up by hand, and what was sent again by hand: both are to be explained for ever.

-- Where a flow went on although the log was not as it was on record, by an operator's decision (./justw forfeit). With
-- the sums of these
--     position - start = messages + ticks + refused + gaps + forfeited
--     readings         = counted + late + duplicates + late_duplicates + open + lost
create table forfeits (
    flow      text        not null,
    topic     text        not null,
    partition int         not null,
    at        timestamptz not null default clock_timestamp(),
    reason    text        not null,
    first     bigint      not null,
    next      bigint      not null,
    offsets   bigint      not null,
    lost      bigint      not null,
    topic_id  text        not null,
    before    jsonb       not null,
    by        text        not null,
    primary key (flow, topic, partition, at)
);
comment on column forfeits.first is 'The position as it was: the offset that would have been accounted for next.';
comment on column forfeits.next is 'Where the flow went on.';
comment on column forfeits.offsets is
    'What the ledger''s forfeited grew by: offsets given up or, below 0, numbers that the log gives a second time.';
comment on column forfeits.lost is 'Readings of windows that were open, which the log no longer has.';
comment on column forfeits.topic_id is 'Of the log that the flow went on with.';
comment on column forfeits.before is 'The progress as it was.';

alter table ledger
    add forfeited bigint not null default 0,
    add lost bigint not null default 0;
comment on column ledger.forfeited is 'Offsets that position passed without accounting for them; forfeits has each decision.';
comment on column ledger.lost is 'Readings that were open when their records went; forfeits has each decision.';

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

-- Writers may take back what they noted and did not send; all else they were given by 0008_roles.sql.
do $$
begin
    if exists (select from pg_roles where rolname = 'ionwax_writer') then
        grant delete on redriven to ionwax_writer;
    end if;
end
$$;
