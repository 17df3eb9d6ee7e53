#!/usr/bin/env bash
# A real Prometheus scrapes an engine under load, with failures and a crash of Redis: every query of every panel of the
# dashboards returns data. Before that, the alert rules are checked and tested.
#
# Needs prometheus and promtool (Debian's package `prometheus`), and python3.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/engine.sh"

promtool check rules "$root/grafana/alerts.yml"
promtool check config "$root/grafana/prometheus.yml"
promtool test rules "$root/grafana/alerts_test.yml"

metrics=127.0.0.1:$(free_port)
start_engine POSTHASTE_METRICS__LISTEN="$metrics" POSTHASTE_DELIVERY__RETRY=fast
start_listener python3 "$root/tests/verify/endpoint.py"

start_prometheus "$metrics" "$root/grafana/alerts.yml"
run python3 "$root/tests/verify/prometheus.py" "$BASE_URL" "$ADMIN_KEY" "$LISTENING" "$PROMETHEUS" \
    "$root/grafana/provisioning/dashboards" "$folder/data"
