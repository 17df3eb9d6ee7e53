"""Makes one of each thing of a tenant, and prints the parameters of paths that lead there, for schemathesis.

    things.py BASE_URL ADMIN_KEY ENDPOINT
"""

import json
import sys
import time
import urllib.request

base, admin_key, endpoint = sys.argv[1:]
TENANT = "known"


def call(method, path, body=None, key=admin_key):
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def first(path, key):
    """The first item of a list, once there is one."""
    deadline = time.monotonic() + 30
    while not (data := call("GET", path, key=key)["data"]):
        assert time.monotonic() < deadline, f"nothing in {path}"
        time.sleep(0.1)
    return data[0]


call("POST", "/api/v1/tenants", {"id": TENANT})
made = call("POST", "/api/v1/keys", {"tenant": TENANT, "role": "tenant"})
key = made["key"]
call("POST", "/api/v1/event-types", {"type": "order.paid", "description": "An order was paid."}, key)
# One attempt, and it is a dead letter: however often it is replayed, it is there again.
new = {"url": f"{endpoint}/fail", "events": ["order.paid"], "retry_count": 0}
webhook = call("POST", "/api/v1/webhooks", new, key)["id"]
event = call("POST", "/api/v1/events", {"type": "order.paid", "data": {"total": 1}}, key)["id"]
letter = first(f"/api/v1/dead-letters?webhook_id={webhook}", key)["id"]
attempt = first(f"/api/v1/webhooks/{webhook}/logs", key)["id"]
replay = call("POST", f"/api/v1/webhooks/{webhook}/replay", {"from": "1h"}, key)["id"]

print(f"# key: {key}")
print("[parameters]")
for name, value in {
    "path.webhook_id": webhook,
    "path.event_id": event,
    "path.delivery_id": letter,
    "path.event_or_delivery_id": event,
    "path.dead_letter_id": letter,
    "path.attempt_id": attempt,
    "path.replay_id": replay,
    "path.event_type": "order.paid",
    "path.key_id": made["id"],
    "path.tenant_id": TENANT,
    "header.X-Tenant": TENANT,
}.items():
    print(f'"{name}" = "{value}"')
