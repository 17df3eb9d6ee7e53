# For other scripts to source: a Posthaste of their own, and an endpoint that it can post to. Both end with the script.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# A socket's path has at most 107 bytes, and Redis' will be in it.
folder=$(mktemp -d "${TMPDIR:-/tmp}/ph.XXXXXX")
started=()

finish() {
    local code=$? pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ "$code" -ne 0 ] && [ -s "$folder/engine.err" ]; then
        echo '--- what the engine logged last' >&2
        tail -n 20 "$folder/engine.err" >&2
    fi
    rm -rf "$folder"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints what a program that was just started says after PATTERN: said PID FILE PATTERN.
said() {
    local found deadline=$((SECONDS + 60))
    while [ "$SECONDS" -lt "$deadline" ] && kill -0 "$1" 2>/dev/null; do
        found=$(sed -n "s|.*$3||p" "$2")
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
        sleep 0.1
    done
    echo "it did not start: $2" >&2
    return 1
}

# Starts `posthaste serve` with the settings that are given as NAME=VALUE; sets BASE_URL and ADMIN_KEY.
start_engine() {
    local program=${POSTHASTE:-${CARGO_TARGET_DIR:-$root/target}/debug/posthaste}
    if [ -z "${POSTHASTE:-}" ]; then
        cargo build --locked --quiet --manifest-path "$root/Cargo.toml"
    fi
    ADMIN_KEY="verify-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    (
        # Neither the settings of whoever calls this, nor a config.toml where it is called.
        unset "${!POSTHASTE_@}"
        cd "$folder"
        export POSTHASTE_DATA_DIR="$folder/data" POSTHASTE_API__LISTEN=127.0.0.1:0 POSTHASTE_API__ADMIN_KEY="$ADMIN_KEY"
        exec env "$@" "$program" serve
    ) >"$folder/engine.out" 2>"$folder/engine.err" &
    started+=($!)
    BASE_URL="http://$(said $! "$folder/engine.out" 'API *http://')"
}

# Starts a program that prints where it listens; sets LISTENING.
start_listener() {
    "$@" >"$folder/listener.${#started[@]}" &
    started+=($!)
    LISTENING=$(said $! "$folder/listener.$((${#started[@]} - 1))" 'listening on ')
}
