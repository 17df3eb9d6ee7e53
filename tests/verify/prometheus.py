"""Loads an engine, crashes its Redis once, and asks a Prometheus that scrapes it for every query of every panel.

prometheus.py API ADMIN_KEY ENDPOINT PROMETHEUS DASHBOARDS DATA_DIR
"""

import json
import re
import sys
import time
from pathlib import Path

from load import Engine, Prometheus

api, admin_key, endpoint, url, dashboards, data_dir = sys.argv[1:]
engine, prometheus = Engine(api, admin_key, data_dir), Prometheus(url)
PATIENCE = 90
# The queries look back over this; the load goes on for as long as they are asked.
WINDOW = "15s"


def has_data(panel, query, labels):
    """Whether there is some; what its lines are named by must be in it."""
    found = prometheus.ask(query)
    for series in found:
        assert labels <= series["metric"].keys(), f"{panel}: no {labels - series['metric'].keys()} in what {query} finds"
    return bool(found)


def panels(path):
    for panel in json.loads(path.read_text())["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for variable, value in (("$job", "posthaste"), ("$instance", ".*"), ("$__rate_interval", WINDOW)):
                query = query.replace(variable, value)
            yield f"{path.name}: {panel['title']}", query, set(re.findall(r"{{(\w+)}}", target["legendFormat"]))


engine.call("POST", "/api/v1/webhooks", {"url": f"{endpoint}/good", "events": ["good"]})
for count in (0, 2):
    engine.call("POST", "/api/v1/webhooks", {"url": f"{endpoint}/fail", "events": ["bad"], "retry_count": count})
wanted = [query for path in sorted(Path(dashboards).glob("*.json")) for query in panels(path)]
assert wanted, "there are no panels"

started, number, crashed = time.monotonic(), 0, False
left = wanted
while left and time.monotonic() - started < PATIENCE:
    for number in range(number, number + 20):
        engine.publish(["good", "bad", "unwanted"], number)
    if not crashed and time.monotonic() - started > 10:
        engine.crash_redis()
        crashed = True
    try:
        left = [(panel, query, labels) for panel, query, labels in left if not has_data(panel, query, labels)]
    except OSError:
        pass
    time.sleep(0.5)
for panel, query, _ in left:
    print(f"no data: {panel}: {query}")
if left:
    sys.exit(1)
targets = prometheus.ask('up{job="posthaste"} == 1')
assert len(targets) == 1, targets
print(f"{len(wanted)} queries of {len({panel for panel, _, _ in wanted})} panels have data")
