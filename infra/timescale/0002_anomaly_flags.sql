-- What anomaly_flags writes: flags, episodes, and the state it resumes from (DESIGN.md, sections 3 and 5).

-- One row a subject, window and watch that was part of an episode. Written absolute, so that a replay gives the same row.
-- The partition of the log is in the key: two partitions that tell of one device never write over each other.
create table anomaly_flags (
    bucket         timestamptz      not null,
    device_id      text             not null,
    metric         text             not null,
    detector       text             not null,
    severity       text             not null,
    score          double precision not null,
    value          double precision,
    expected       double precision,
    lower          double precision,
    upper          double precision,
    episode_id     text,
    params_version text             not null,
    revision       int              not null default 0,
    partition      int              not null,
    primary key (device_id, metric, detector, bucket, partition)
);
create index on anomaly_flags (bucket);
create index on anomaly_flags (episode_id);
comment on table anomaly_flags is 'One row a subject, minute and rule that was found wrong; value against expected, lower and upper.';
comment on column anomaly_flags.device_id is 'Empty where the pipeline itself is flagged: value is the devices that spoke, expected those that should.';
comment on column anomaly_flags.metric is 'Empty where a device as a whole is flagged.';
comment on column anomaly_flags.detector is 'The rule of the rules file, or the default one, that says so.';
comment on column anomaly_flags.episode_id is 'Of anomaly_episodes; null where late readings alone made a flag of a minute.';
comment on column anomaly_flags.revision is 'Late readings that the rollup had taken in when it was judged.';

-- One row an anomaly, made when it opens and completed when it closes.
create table anomaly_episodes (
    episode_id     text             not null,
    flow           text             not null,
    topic          text             not null,
    partition      int              not null,
    device_id      text             not null,
    metric         text             not null,
    detector       text             not null,
    severity       text             not null,
    opened_at      timestamptz      not null,
    closed_at      timestamptz,
    cause          text,
    peak           double precision not null,
    params_version text             not null,
    primary key (flow, topic, partition, episode_id)
);
create index on anomaly_episodes (flow, topic, partition) where closed_at is null;
create index on anomaly_episodes (opened_at);
comment on table anomaly_episodes is 'One row an anomaly; open while closed_at is null. Of an outage of the pipeline each partition has a row of one id.';
comment on column anomaly_episodes.opened_at is 'Start of the window that opened it.';
comment on column anomaly_episodes.closed_at is 'End of the window that closed it.';
comment on column anomaly_episodes.cause is 'Why it closed: calm, forgotten (the series is long gone) or settings (the rule changed).';
comment on column anomaly_episodes.peak is 'Its highest score; while it is open, the score that opened it.';

-- The state of a partition every few minutes, compressed; progress.resume is where the log goes on from it.
create table flag_states (
    flow      text   not null,
    topic     text   not null,
    partition int    not null,
    piece     int    not null,
    resume    bigint not null,
    content   bytea  not null,
    primary key (flow, topic, partition, piece)
);
alter table flag_states alter column content set storage external;
comment on table flag_states is 'What anomaly_flags knows of a partition, as of the offset resume; one row, or several pieces where it is large.';
