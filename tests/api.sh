#!/usr/bin/env bash
# Every operation of the API by curl, as a user would try it: prints a line for each, and ends with 1 at the first answer
# that is wrong, or when an operation of /openapi.json was not called.
#
#     tests/api.sh                        against an engine that it starts, in a folder of its own
#     tests/api.sh BASE_URL [ADMIN_KEY]   against one that runs and may post to this machine; its tenant, with all that is
#                                         made, is deleted again, also when it fails or is told to stop
#
# Needs curl and python3.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/verify/engine.sh"

is_ours=
if [ $# -gt 0 ]; then
    BASE_URL=${1%/}
    ADMIN_KEY=${2:-${POSTHASTE_API__ADMIN_KEY:-}}
else
    is_ours=1
    start_engine
fi
start_listener python3 "$root/tests/verify/endpoint.py"
receiver=$LISTENING

tenant="smoke-$$-$SECONDS$RANDOM"
is_there=
key=$ADMIN_KEY
checks=0
: >"$folder/called"

# One request: call METHOD PATH [ARGUMENTS OF CURL…]. Its status is in $status, its body in $folder/body. A signal waits for
# a program in the foreground, and so for the answer: nothing is made any more when what was made is deleted.
call() {
    local method=$1 path=$2
    shift 2
    echo "$method ${path%%\?*}" >>"$folder/called"
    : >"$folder/body"
    curl -sS --max-time 60 -o "$folder/body" -w '%{http_code}' -X "$method" "$BASE_URL$path" \
        -H "Authorization: Bearer $key" "$@" >"$folder/status" || return
    status=$(cat "$folder/status")
}

# The webhooks of the tenant, then itself: its key and its type go with it. Of an engine of our own all goes.
clean_up() {
    local hook round
    [ -n "$is_there" ] && [ -z "$is_ours" ] || return 0
    key=$ADMIN_KEY
    for round in 1 2 3; do
        call GET '/api/v1/webhooks?limit=250' -H "X-Tenant: $tenant" --max-time 10 || break
        # With such a key nothing was made.
        case $status in 401 | 403) return ;; esac
        for hook in $(get '" ".join(hook["id"] for hook in it["data"])'); do
            call DELETE "/api/v1/webhooks/$hook" -H "X-Tenant: $tenant" --max-time 10 || break 2
        done
        call DELETE "/api/v1/tenants/$tenant" --max-time 10 || break
        case $status in 204 | 404) return ;; esac
    done
    echo "what was made could not be deleted: tenant $tenant at $BASE_URL" >&2
}

fail() {
    printf 'FAIL  %-6s %s: %s\n' "$1" "$2" "$3"
    cat "$folder/body"
    echo
    exit 1
}

# The same, which must be answered with STATUS: check STATUS METHOD PATH [ARGUMENTS OF CURL…].
check() {
    local wanted=$1
    shift
    call "$@"
    [ "$status" = "$wanted" ] || fail "$1" "$2" "answered $status, not $wanted"
    checks=$((checks + 1))
    printf 'ok    %-6s %s %s\n' "$1" "$2" "$status"
}

# The same with a JSON body: check_json STATUS METHOD PATH JSON [ARGUMENTS OF CURL…].
check_json() {
    local wanted=$1 method=$2 path=$3 json=$4
    shift 4
    check "$wanted" "$method" "$path" -H 'Content-Type: application/json' --data-binary "$json" "$@"
}

# What an expression says of the last answer's JSON, `it`.
get() {
    python3 -c 'import json, sys; it = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$folder/body" "$1"
}

# Holds the last answer to an expression.
holds() {
    [ "$(get "$1")" = True ] || fail "the" "last answer" "this does not hold: $1"
}

# A GET, until the expression holds: until_holds PATH EXPRESSION.
until_holds() {
    local deadline=$((SECONDS + 30))
    call GET "$1"
    until [ "$status" = 200 ] && [ "$(get "$2")" = True ]; do
        [ "$SECONDS" -lt "$deadline" ] || fail GET "$1" "after 30 s $status, and this does not hold: $2"
        sleep 0.2
        call GET "$1"
    done
    checks=$((checks + 1))
    printf 'ok    %-6s %s %s\n' GET "$1" "$status"
}

echo "# the process: $BASE_URL"
check 200 GET /healthz
check 200 GET /readyz
check 200 GET /metrics
check 200 GET /openapi.json
cp "$folder/body" "$folder/openapi.json"

echo '# tenants and keys'
key=rubbish check 401 GET /api/v1/webhooks
is_there=1
check_json 201 POST /api/v1/tenants "{\"id\":\"$tenant\",\"name\":\"Smoke test\",\"rate_limit_per_minute\":100000}"
check_json 409 POST /api/v1/tenants "{\"id\":\"$tenant\"}"
check 200 GET '/api/v1/tenants?limit=250'
check_json 201 POST /api/v1/keys "{\"role\":\"tenant\",\"tenant\":\"$tenant\"}"
tenant_key=$(get 'it["key"]') key_id=$(get 'it["id"]')
check 200 GET "/api/v1/keys?tenant=$tenant"
holds '[key["role"] for key in it["data"]] == ["tenant"] and "key" not in it["data"][0]'
key=$tenant_key
check 403 GET /api/v1/tenants

echo '# event types'
new_type='{"type":"order.paid","category":"order","description":"An order was paid.","sample":{"total":1}}'
check_json 201 POST /api/v1/event-types "$new_type"
check 200 GET '/api/v1/webhooks/events?limit=250'
holds '"order.paid" in [known["type"] for known in it["data"]]'
check 204 DELETE /api/v1/event-types/order.paid
check_json 201 POST /api/v1/event-types "$new_type"
check 204 DELETE '/api/v1/event-types?type=order.paid'

echo '# webhooks'
check_json 422 POST /api/v1/webhooks '{"events":["*"]}'
new_hook="{\"url\":\"$receiver/ok\",\"events\":[\"message.*\"],\"name\":\"smoke\"}"
check_json 201 POST /api/v1/webhooks "$new_hook" -H "Idempotency-Key: $tenant-hook"
hook=$(get 'it["id"]') ingest_secret=$(get 'it["ingest_secret"]')
check_json 201 POST /api/v1/webhooks "$new_hook" -H "Idempotency-Key: $tenant-hook"
holds "it['id'] == '$hook'"
check_json 201 POST /api/v1/webhooks "{\"url\":\"$receiver/fail\",\"events\":[\"contact.created\"],\"retry_count\":0}"
failing=$(get 'it["id"]')
check 200 GET '/api/v1/webhooks?limit=1'
holds 'len(it["data"]) == 1 and it["next_cursor"] is not None'
check 200 GET "/api/v1/webhooks?cursor=$(get 'it["next_cursor"]')"
check 200 GET "/api/v1/webhooks/$hook"
holds '"secret" not in it'
check 404 GET /api/v1/webhooks/wh_nothing
check_json 200 PATCH "/api/v1/webhooks/$hook" '{"name":null,"timeout_seconds":5}'
holds 'it["name"] is None and it["timeout_seconds"] == 5'
check 200 POST "/api/v1/webhooks/$hook/pause"
holds 'it["status"] == "paused"'
check_json 200 POST "/api/v1/webhooks/$hook/resume" '{"skip":false}'
check_json 200 POST "/api/v1/webhooks/$hook/rotate-secret" '{"overlap_seconds":60}'
holds 'it["secret"].startswith("whsec_")'
check_json 200 POST "/api/v1/webhooks/$hook/test" '{"type":"message.created"}'
holds 'it["is_success"] and it["response_status"] == 200'
check 200 POST "/api/v1/webhooks/$failing/test"
holds 'not it["is_success"] and it["response_status"] == 500'

echo '# events'
new_event='{"type":"message.created","data":{"text":"Grüße"}}'
check_json 202 POST /api/v1/events "$new_event" -H "Idempotency-Key: $tenant-event"
event=$(get 'it["id"]')
check_json 202 POST /api/v1/events "$new_event" -H "Idempotency-Key: $tenant-event"
holds "it['id'] == '$event'"
check_json 409 POST /api/v1/events '{"type":"message.created","data":1}' -H "Idempotency-Key: $tenant-event"
check_json 202 POST /api/v1/events/batch '[{"type":"contact.created","data":1},{"type":"no type","data":2}]'
holds '"id" in it["data"][0] and it["data"][1]["error"]["code"] == "invalid"'
check 202 POST /api/v1/events/batch -H 'Content-Type: application/x-ndjson' --data-binary $'{"type":"other","data":3}\n'
check 200 GET '/api/v1/events?since=1h&type=message.created'
holds "[found['id'] for found in it['data']] == ['$event']"
check 200 GET "/api/v1/events/$event"
holds 'it["data"] == {"text": "Grüße"}'

echo '# deliveries'
until_holds "/api/v1/events/$event/deliveries" '[found["status"] for found in it["data"]] == ["delivered"]'
delivery=$(get 'it["data"][0]["id"]')
check 200 GET "/api/v1/deliveries/$delivery"
holds 'it["attempt_log"][0]["response_body"] == "ok\n"'
check 200 GET "/api/webhooks/$event/status"
holds 'it["status"] == "delivered"'
check 200 GET "/api/webhooks/subscription/$hook"
holds "'$delivery' in [found['id'] for found in it['data']]"
check 202 POST "/api/v1/deliveries/$delivery/resend"
holds 'it["how"] == "copied"'

echo '# logs and statistics'
check 200 GET "/api/v1/webhooks/$hook/logs?status=success&event_id=$event"
attempt=$(get 'it["data"][0]["id"]')
check 200 GET "/api/v1/attempts/$attempt"
holds 'it["curl"].startswith("curl ")'
check 200 GET "/api/v1/webhooks/$hook/stats?window=24h"
holds 'it["success_rate"] == 1.0'

echo '# dead letters'
until_holds "/api/v1/dead-letters?webhook_id=$failing" 'len(it["data"]) == 1'
letter=$(get 'it["data"][0]["id"]')
check 200 GET "/api/v1/dead-letters/$letter"
holds 'it["reason"] == "exhausted" and it["last_status"] == 500'
check 200 POST "/api/v1/dead-letters/$letter/replay"
until_holds "/api/v1/dead-letters?webhook_id=$failing" 'len(it["data"]) == 1 and it["data"][0]["attempts"] == 2'
check_json 200 POST /api/v1/dead-letters/replay "{\"webhook_id\":\"$failing\",\"dry_run\":true}"
holds 'it["count"] == 1'
check 204 DELETE "/api/v1/dead-letters/$letter"
check 404 DELETE "/api/v1/dead-letters/$letter"

echo '# replays'
check_json 200 POST "/api/v1/webhooks/$hook/replay" '{"from":"1h","dry_run":true}'
holds 'it["count"] == 1'
check_json 202 POST "/api/v1/webhooks/$hook/replay" '{"from":"1h"}'
until_holds "/api/v1/webhooks/$hook/replays/$(get 'it["id"]')" 'it["state"] == "done" and it["queued"] == 1'

echo '# ingest'
posted='{"text":"signed"}'
signature=$(python3 -c 'import hmac, sys; print(hmac.digest(*(text.encode() for text in sys.argv[1:]), "sha256").hex())' \
    "$ingest_secret" "$posted")
check_json 202 POST "/api/webhooks/ingest/$hook" "$posted" \
    -H 'X-Webhook-Event: message.created' -H "X-Hub-Signature-256: sha256=$signature"
until_holds "/api/webhooks/$(get "it['$hook']")/status" 'it["status"] == "delivered"'
check_json 401 POST "/api/webhooks/ingest/$hook" "$posted " \
    -H 'X-Webhook-Event: message.created' -H "X-Hub-Signature-256: sha256=$signature"

echo '# and all of it away'
check 204 DELETE "/api/v1/webhooks/$hook"
check 204 DELETE "/api/v1/webhooks/$failing"
check 404 GET "/api/v1/webhooks/$hook"
key=$ADMIN_KEY
check 204 DELETE "/api/v1/keys/$key_id"
key=$tenant_key check 401 GET /api/v1/webhooks
check 204 DELETE "/api/v1/tenants/$tenant"
is_there=

python3 - "$folder/openapi.json" "$folder/called" "$checks" <<'PY'
"""Which operations of the document were called, by the template that fits with the fewest parameters."""
import json, re, sys

document, called, checks = json.load(open(sys.argv[1])), open(sys.argv[2]), sys.argv[3]
listed = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
missed = set(listed)
for line in called:
    method, path = line.split()
    fits = [one for one in listed if one[0] == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", one[1]), path)]
    missed -= set(sorted(fits, key=lambda one: one[1].count("{"))[:1])
for method, path in sorted(missed):
    print(f"MISSED {method} {path}")
print(f"{checks} checks, {len(listed) - len(missed)} of {len(listed)} operations of /openapi.json called")
sys.exit(bool(missed))
PY
