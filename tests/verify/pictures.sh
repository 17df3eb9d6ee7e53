#!/usr/bin/env bash
# Draws the pictures of the README anew: panels of the dashboard, with what a real Prometheus has of an engine under load,
# whose Redis crashes once. Prints what `posthaste status` shows of it, which is in the README as well.
#
# Needs prometheus (Debian's package `prometheus`), and a python3 with matplotlib in the folder that is named first.
set -euo pipefail
python=$1
. "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

metrics=127.0.0.1:$(free_port)
start_engine POSTHASTE_METRICS__LISTEN="$metrics"
start_listener python3 "$root/tests/verify/endpoint.py"
start_prometheus "$metrics"
run "$python" "$root/tests/verify/pictures.py" "$program" "$BASE_URL" "$ADMIN_KEY" "$LISTENING" "$PROMETHEUS" "$folder/data" \
    "$root/grafana/provisioning/dashboards/posthaste.json" "$root/docs/pictures/dashboard.png"
