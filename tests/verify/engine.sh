# For other scripts to source: a Posthaste of their own, and an endpoint that it can post to. Both end with the script,
# whether it is done, fails, or is told to stop.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=
listeners=0
program=

# What a script that sources this has to put in order before all ends.
clean_up() { :; }

# Ends what is still running: TERM, and KILL for what has not ended after 20 s.
finish() {
    local code=$? pid deadline
    # A second signal does not cut this short.
    trap '' HUP INT TERM
    clean_up || true
    deadline=$((SECONDS + 20))
    for pid in $(jobs -pr); do kill -TERM -- "-$pid" 2>/dev/null || true; done
    while [ -n "$(jobs -pr)" ] && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
    for pid in $(jobs -pr); do
        # The engine's Redis has a process group of its own, and does not end with an engine that is killed.
        pkill -KILL -P "$pid" 2>/dev/null || true
        kill -KILL -- "-$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    if [ -n "$folder" ]; then
        if [ "$code" -ne 0 ] && [ -s "$folder/engine.err" ]; then
            echo '--- what the engine logged last' >&2
            tail -n 20 "$folder/engine.err" >&2
        fi
        rm -rf "$folder"
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# Named before it is made, so that a signal in between leaves nothing. A socket's path has at most 107 bytes, and Redis'
# will be in it.
folder=${TMPDIR:-/tmp}/ph.$$-$RANDOM
mkdir -m 700 "$folder" || { folder= && exit 1; }

# Starts a program in the background, in a process group of its own: `finish` ends it with all that it has started.
start() {
    set -m
    "$@" </dev/null &
    set +m
}

# Runs a program to its end. A signal would wait for the end of one in the foreground; this one it ends.
run() {
    start "$@"
    wait $!
}

# Sets SAID to what a program that was just started says after PATTERN: said PID FILE PATTERN.
said() {
    local deadline=$((SECONDS + 60))
    while [ "$SECONDS" -lt "$deadline" ] && kill -0 "$1" 2>/dev/null; do
        SAID=$(sed -n "s|.*$3||p" "$2")
        if [ -n "$SAID" ]; then
            return
        fi
        sleep 0.1
    done
    echo "it did not start: $2" >&2
    return 1
}

# `posthaste serve` with the settings that are given as NAME=VALUE, and neither those of whoever calls this, nor a
# config.toml where it is called.
serve() {
    unset "${!POSTHASTE_@}"
    cd "$folder"
    # What it may take to end is less than what `finish` waits for.
    export POSTHASTE_DATA_DIR="$folder/data" POSTHASTE_API__LISTEN=127.0.0.1:0 POSTHASTE_API__ADMIN_KEY="$ADMIN_KEY" \
        POSTHASTE_SHUTDOWN_GRACE_SECONDS=5
    exec env "$@" "$program" serve
}

# Sets `program` to the engine, which is built unless POSTHASTE names one.
find_engine() {
    local asked=${POSTHASTE:-${CARGO_TARGET_DIR:-$root/target}/debug/posthaste}
    if [ -z "${POSTHASTE:-}" ]; then
        run cargo build --locked --quiet --manifest-path "$root/Cargo.toml"
    fi
    # It is started in another folder.
    if ! program=$(command -v -- "$asked") || ! program=$(realpath -- "$program"); then
        echo "this is no program: $asked" >&2
        return 1
    fi
}

# Starts an engine with the settings that are given as NAME=VALUE; sets BASE_URL and ADMIN_KEY.
start_engine() {
    find_engine
    ADMIN_KEY="verify-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    start serve "$@" >"$folder/engine.out" 2>"$folder/engine.err"
    said $! "$folder/engine.out" 'API *http://'
    BASE_URL="http://$SAID"
}

# Starts a program that prints where it listens; sets LISTENING.
start_listener() {
    local out=$folder/listener.$((listeners += 1))
    start "$@" >"$out"
    said $! "$out" 'listening on '
    LISTENING=$SAID
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Starts a Prometheus that asks an engine for its metrics every second, with the rules of the files that are named too; sets
# PROMETHEUS: start_prometheus METRICS RULES…
start_prometheus() {
    local metrics=$1 rules
    shift
    rules=$(printf '"%s",' "$@")
    cat >"$folder/prometheus.yml" <<END
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [${rules#'"",'}]
scrape_configs: [{job_name: posthaste, static_configs: [{targets: ["$metrics"]}]}]
END
    PROMETHEUS=127.0.0.1:$(free_port)
    start prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/tsdb" \
        --web.listen-address="$PROMETHEUS" --log.level=error 2>"$folder/prometheus.err"
    PROMETHEUS=http://$PROMETHEUS
}
