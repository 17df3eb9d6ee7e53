#!/usr/bin/env bash
# Each alert of grafana/alerts.yml fires in a run made to cause it: real processes, a real Redis for each installation, and
# a real Prometheus.
#
# Needs prometheus (Debian's package `prometheus`), redis-server and python3.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

find_engine
start_listener python3 "$root/tests/verify/endpoint.py"
run python3 "$root/tests/verify/alerts.py" "$program" "$LISTENING" "$root/grafana/alerts.yml" "$folder"
