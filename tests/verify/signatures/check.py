"""Deliveries are accepted by receivers written with official libraries, and what those sign is accepted by the ingest.

check.py BASE_URL ADMIN_KEY NAME=RECEIVER…
"""

import itertools
import json
import sys
import time
import urllib.error
import urllib.request

base, admin_key = sys.argv[1:3]
receivers = dict(receiver.split("=", 1) for receiver in sys.argv[3:])
TEXT = "a secret in words, of 32 letters"
# Published as they stand here: a `raw` delivery has these very bytes.
PAYLOADS = ['{"text":"hello"}', '{ "n": 1.0, "text" : "Grüße, 東京, \\u00e9 🎉" }', '"日本語だけ"', "[]"]
checks = 0


def post(url, body, headers=()):
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **dict(headers)}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method="POST"), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def api(path, body=None):
    key = {"authorization": f"Bearer {admin_key}"}
    if body is not None:
        status, answer = post(base + path, body, key)
        assert status < 300, f"{path}: {status} {answer}"
        return answer
    with urllib.request.urlopen(urllib.request.Request(base + path, headers=key), timeout=30) as answer:
        return json.load(answer)


def same(found, expected, about):
    global checks
    assert found == expected, f"{about}: {found}, not {expected}"
    checks += 1


def secret_of(webhook):
    """As its text, and as libraries of Standard Webhooks want it."""
    return {"text": webhook["secret"], "standard": webhook.get("standard_secret", webhook["secret"])}


class Hook:
    def __init__(self, name, payload_format, kind):
        self.name, self.receiver = f"{name}-{payload_format}-{kind}", receivers[name]
        self.with_hub = name == "node"
        new = {"url": f"{self.receiver}/hook/{self.name}", "events": ["check"], "payload_format": payload_format}
        if kind == "text":
            new["secret"] = TEXT
        webhook = api("/api/v1/webhooks", {**new, "retry_count": 0})
        self.id, self.ingest_secrets = webhook["id"], [webhook["ingest_secret"]]
        self.secrets = [secret_of(webhook)]
        self.tell()

    def tell(self):
        post(f"{self.receiver}/secrets", {"hook": self.name, "secrets": self.secrets})

    def rotate(self, overlap_seconds, with_ingest):
        body = {"overlap_seconds": overlap_seconds, "with_ingest": with_ingest}
        webhook = api(f"/api/v1/webhooks/{self.id}/rotate-secret", body)
        self.secrets = [secret_of(webhook), self.secrets[0]]
        if with_ingest:
            self.ingest_secrets = [webhook["ingest_secret"], self.ingest_secrets[0]]
        self.tell()


def delivered(event, hooks):
    """What each hook's receiver answered to an event, once all have had it."""
    deadline = time.monotonic() + 30
    while (status := api(f"/api/webhooks/{event}/status"))["status"] == "pending" or not status["deliveries"]:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    same(len(status["deliveries"]), len(hooks), "deliveries")
    attempts = {one["webhook_id"]: one["attempt_log"][-1] for one in status["deliveries"]}
    return [(hook, attempts[hook.id]) for hook in hooks]


def publish(hooks, standard, hub):
    """Publishes every payload; `standard` and `hub`: which of the hook's secrets must verify."""
    for payload in PAYLOADS:
        event = api("/api/v1/events", f'{{"type":"check","data":{payload}}}')["id"]
        for hook, attempt in delivered(event, hooks):
            expected = {"standard": standard, "tampered": False, **({"hub": hub} if hook.with_hub else {})}
            same(json.loads(attempt["response_body"]), expected, f"{hook.name} {payload}")
            same(attempt["response_status"], 200, f"{hook.name} {payload}")


def ingest(hook, secret, payload, is_taken):
    """What a library signs is taken, by each of its schemes; changed, it is not."""
    serial = next(numbers)
    body = payload.replace("hello", f"hello {serial}")
    _, schemes = post(f"{hook.receiver}/sign", {"secret": secret, "id": f"msg_{serial}", "body": body})
    for scheme, headers in schemes.items():
        url, headers = f"{base}/api/webhooks/ingest/{hook.id}", {**headers, "x-webhook-event": "check"}
        same(post(url, body + " ", headers)[0], 401, f"ingest {hook.name} {scheme}, changed")
        status, answer = post(url, body, headers)
        same(status, 202 if is_taken else 401, f"ingest {hook.name} {scheme} {answer}")
        if is_taken:
            [(_, attempt)] = delivered(answer[hook.id], [hook])
            same(attempt["response_status"], 200, f"ingest {hook.name} {scheme}, delivered")


numbers = itertools.count(1)
hooks = [Hook(*each) for each in itertools.product(receivers, ["envelope", "raw"], ["whsec", "text"])]
print(f"{len(hooks)} webhooks: {', '.join(hook.name for hook in hooks)}")

print("one secret")
publish(hooks, [True], [True])
for hook, payload in itertools.product(hooks, PAYLOADS):
    ingest(hook, hook.ingest_secrets[0], payload, True)

print("a rotation with an overlap: both secrets verify, by the hub's header the old one")
for hook in hooks:
    hook.rotate(3600, True)
publish(hooks, [True, True], [False, True])
for hook, secret in itertools.product(hooks, [0, 1]):
    ingest(hook, hook.ingest_secrets[secret], PAYLOADS[0], True)

print("a rotation without: the new secret alone")
for hook in hooks:
    hook.rotate(0, True)
publish(hooks, [True, False], [True, False])
for hook in hooks:
    ingest(hook, hook.ingest_secrets[0], PAYLOADS[0], True)
    ingest(hook, hook.ingest_secrets[1], PAYLOADS[0], False)

print(f"{checks} checks held")
