# Recipes of this repository; `./justw` runs them where just, uv or Python are missing. Arguments reach a recipe's
# program as they were typed ("$@"), and `exec` lets Ctrl-C and exit codes reach the person as the program meant them.

set positional-arguments

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

# What can be done here
_default:
    @just --justfile "{{ justfile() }}" --list --unsorted

# The whole topology here and now, with a simulated fleet: demo --for 60s
[group("use")]
[no-exit-message]
demo *args:
    @exec python -m infra.demo "$@"

# Publish a reading of one's own: publish boiler-7 temperature=21.5 --wait
[group("use")]
[no-exit-message]
publish *args:
    @exec python -m infra.publish "$@"

# Ask the database: sql "select * from rollups_1m limit 5"
[group("use")]
[no-exit-message]
sql *args:
    @exec python -m infra.sql "$@"

# What people say of devices and metrics: devices import FILE.csv
[group("use")]
[no-exit-message]
devices *args:
    @exec python -m infra.devices "$@"

# Explore in Jupyter
[group("use")]
[no-exit-message]
notebook *args: (_sync "notebook")
    @PYTHONPATH="$PWD" exec python -m jupyterlab --notebook-dir=notebooks \
        $([ "$(id -u)" != 0 ] || echo --allow-root) "$@"

# Run a dataflow with bytewax.run: run minute_rollups --settings infra/settings/prod.yaml --processes 2
[group("operate")]
[no-exit-message]
run *args:
    @exec python -m infra.supervise "$@"

# Apply the migrations that the database has not seen
[group("operate")]
[no-exit-message]
migrate *args:
    @exec python -m infra.migrate "$@"

# Partitions, hours and days, retention, dead letters counted, beside the dataflows: maintain --every 60s --letters
[group("operate")]
[no-exit-message]
maintain *args:
    @exec python -m infra.maintain "$@"

# Create and check the Kafka topics
[group("operate")]
[no-exit-message]
topics *args:
    @exec python -m infra.topics "$@"

# Before mqtt.clients is lowered to N, empty the sessions above it: mqtt-drain --clients N
[group("operate")]
[no-exit-message]
mqtt-drain *args:
    @exec python -m infra.mqtt_drain "$@"

# Is every reading accounted for exactly once: verify --deep --sent sent.jsonl
[group("operate")]
[no-exit-message]
verify *args:
    @exec python -m infra.verify "$@"

# What could not be used, and why: dead-letters --reason not_json --since -2h
[group("operate")]
[no-exit-message]
dead-letters *args:
    @exec python -m infra.letters "$@"

# Send dead letters through today's decoder, back into the log, each once: redrive --reason unknown_schema
[group("operate")]
[no-exit-message]
redrive *args:
    @exec python -m infra.letters.redrive "$@"

# Go on with a log that a flow refuses, and write down what is given up by that: forfeit --settings FILE --at end --yes
[group("operate")]
[no-exit-message]
forfeit *args:
    @exec python -m infra.forfeit "$@"

# The simulated fleet against any broker: load --users 10 --rate 100 --for 1m --record sent.jsonl
[group("operate")]
[no-exit-message]
load *args:
    @exec python -m infra.load "$@"

# Break everything at random, and show that nothing is lost or counted twice: chaos --minutes 10 --seed 7
[group("develop")]
[no-exit-message]
chaos *args: (_sync "test")
    @exec python -m infra.chaos "$@"

# Lint, types and every test that needs no server installed, but long ones (-m long; -n 0: in one process, for --pdb)
[group("develop")]
[no-exit-message]
test *args: (_sync "test") lint types
    exec python -m pytest -n 2 --dist loadfile -m "not long" "$@"

# Tests against the servers of MQTT_URL, KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL
[group("develop")]
[no-exit-message]
test-integration *args: (_sync "test")
    exec python -m pytest --real -m contract "$@"

# Lint and formatting, changing nothing
[group("develop")]
lint: (_sync "test")
    ruff check .
    ruff format --check .

# Mend formatting and what lint can mend
[group("develop")]
fmt: (_sync "test")
    ruff check --fix .
    ruff format .

# Types, strictly
[group("develop")]
types: (_sync "test")
    python -m mypy --num-workers 2

# Measure: bench NAME
[group("develop")]
[no-exit-message]
bench *args: (_sync "test")
    @exec python -m infra.bench "$@"

# Resolve pyproject.toml into requirements*.lock again: lock --upgrade-package polars
[group("develop")]
[no-exit-message]
lock *args:
    @exec python -m infra.lock "$@"

# Generate schemas/*_pb2.py from the proto files
[group("develop")]
proto: (_sync "test")
    python -m infra.proto

# Delete the tools' caches
[group("develop")]
clean:
    rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
    find . -name __pycache__ -not -path "./.venv*" -prune -exec rm -rf {} +

# Install what a group of recipes needs, unless it is there
_sync group:
    @python3 -I infra/bootstrap.py sync "$1"
