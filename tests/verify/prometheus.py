"""Loads an engine, crashes its Redis once, and asks a Prometheus that scrapes it for every query of every panel.

prometheus.py API ADMIN_KEY ENDPOINT PROMETHEUS DASHBOARDS DATA_DIR
"""

import json
import os
import re
import signal
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

api, admin_key, endpoint, prometheus, dashboards, data_dir = sys.argv[1:]
PATIENCE = 90
# The queries look back over this; the load goes on for as long as they are asked.
WINDOW = "15s"


def call(method, path, body=None):
    headers = {"authorization": f"Bearer {admin_key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def publish(number):
    """Publishes a few events; while Redis is away they are refused, which is no fault here."""
    try:
        call("POST", "/api/v1/events/batch", [{"type": kind, "data": number} for kind in ("good", "bad", "unwanted")])
    except (urllib.error.HTTPError, OSError) as error:
        print(f"not published: {error}", file=sys.stderr)


def ask(query):
    url = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(url, timeout=30) as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    # A quotient of nothing by nothing is no data.
    return [series for series in found["data"]["result"] if series["value"][1] != "NaN"]


def has_data(panel, query, labels):
    """Whether there is some; what its lines are named by must be in it."""
    found = ask(query)
    for series in found:
        assert labels <= series["metric"].keys(), f"{panel}: no {labels - series['metric'].keys()} in what {query} finds"
    return bool(found)


def crash_redis():
    """Kills the engine's own Redis, which it then starts again."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.path.join(data_dir, "redis.sock"))
    link.sendall(b"INFO server\r\n")
    said = link.recv(65536).decode()
    pid = next(line.split(":")[1] for line in said.splitlines() if line.startswith("process_id:"))
    os.kill(int(pid), signal.SIGKILL)


def panels(path):
    for panel in json.loads(path.read_text())["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for variable, value in (("$job", "posthaste"), ("$instance", ".*"), ("$__rate_interval", WINDOW)):
                query = query.replace(variable, value)
            yield f"{path.name}: {panel['title']}", query, set(re.findall(r"{{(\w+)}}", target["legendFormat"]))


call("POST", "/api/v1/webhooks", {"url": f"{endpoint}/good", "events": ["good"]})
for count in (0, 2):
    call("POST", "/api/v1/webhooks", {"url": f"{endpoint}/fail", "events": ["bad"], "retry_count": count})
wanted = [query for path in sorted(Path(dashboards).glob("*.json")) for query in panels(path)]
assert wanted, "there are no panels"

started, number, crashed = time.monotonic(), 0, False
left = wanted
while left and time.monotonic() - started < PATIENCE:
    for number in range(number, number + 20):
        publish(number)
    if not crashed and time.monotonic() - started > 10:
        crash_redis()
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
targets = ask('up{job="posthaste"} == 1')
assert len(targets) == 1, targets
print(f"{len(wanted)} queries of {len({panel for panel, _, _ in wanted})} panels have data")
