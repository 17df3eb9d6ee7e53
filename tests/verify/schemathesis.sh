#!/usr/bin/env bash
# Requests that schemathesis makes up from the OpenAPI document, against an engine of its own: first with the admin key and
# ids of nothing, then with a tenant's key and ids of things that are there. Its arguments go to schemathesis.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/engine.sh"
schemathesis=$root/target/verify/schemathesis/bin/schemathesis

# It asks as fast as it can, and makes webhooks with whatever URL it thinks of: all that is sent ends at the endpoint.
start_listener python3 "$root/tests/verify/endpoint.py"
start_engine POSTHASTE_TARGETS__PROXY="$LISTENING" POSTHASTE_API__RATE_LIMIT_PER_MINUTE=100000000 \
    POSTHASTE_INGEST__RATE_LIMIT_PER_MINUTE=1000000 POSTHASTE_INGEST__ADDRESS_RATE_LIMIT_PER_MINUTE=1000000

# try KEY CONFIG [OPTIONS…]
try() {
    local key=$1 config=$2
    shift 2
    API_KEY=$key run "$schemathesis" --config-file "$config" run "$BASE_URL/openapi.json" --no-color "$@"
}

echo '# the admin key, and ids of nothing'
cd "$folder"
failed=0
try "$ADMIN_KEY" "$root/tests/verify/schemathesis.toml" "$@" || failed=1

echo "# a tenant's key, and ids of things that are there"
run python3 "$root/tests/verify/things.py" "$BASE_URL" "$ADMIN_KEY" "$LISTENING" >"$folder/things.toml"
cat "$root/tests/verify/schemathesis.toml" "$folder/things.toml" >"$folder/known.toml"
tenant_key=$(sed -n 's/^# key: //p' "$folder/things.toml")
# Deleting them would leave nothing to ask for.
try "$tenant_key" "$folder/known.toml" --phases examples,coverage,fuzzing --exclude-method DELETE "$@" || failed=1
exit "$failed"
