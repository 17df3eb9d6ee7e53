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

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

metrics=127.0.0.1:$(free_port)
start_engine POSTHASTE_METRICS__LISTEN="$metrics" POSTHASTE_DELIVERY__RETRY=fast
start_listener python3 "$root/tests/verify/endpoint.py"

cat >"$folder/prometheus.yml" <<END
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$root/grafana/alerts.yml"]
scrape_configs: [{job_name: posthaste, static_configs: [{targets: ["$metrics"]}]}]
END
prometheus=127.0.0.1:$(free_port)
start prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/tsdb" \
    --web.listen-address="$prometheus" --log.level=error 2>"$folder/prometheus.err"

run python3 "$root/tests/verify/prometheus.py" "$BASE_URL" "$ADMIN_KEY" "$LISTENING" "http://$prometheus" \
    "$root/grafana/provisioning/dashboards" "$folder/data"
