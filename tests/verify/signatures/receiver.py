"""A receiver as somebody would write it with the `standardwebhooks` of PyPI. Prints where it listens.

POST /secrets   {"hook", "secrets"}      the secrets that its deliveries are tried with from now on
POST /hook/…                             a delivery: 200 if the first secret verifies it and a changed body is refused,
                                         else 401; the answer says what held
POST /sign      {"secret", "id", "body"} the headers of a request that the library signs
"""

import json
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

secrets = {}


def holds(secret, body, headers):
    try:
        Webhook(secret).verify(body, headers)
        return True
    except WebhookVerificationError:
        return False


def verified(hook, body, headers):
    tampered = body[:-1] + b" " + body[-1:]
    found = {
        "standard": [holds(secret, body, headers) for secret in secrets[hook]],
        "tampered": holds(secrets[hook][0], tampered, headers),
    }
    return 200 if found["standard"][0] and not found["tampered"] else 401, found


def signed(secret, id, body):
    now = datetime.now(timezone.utc)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(id, now, body),
    }


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.startswith("/hook/"):
            self.answer(*verified(self.path.removeprefix("/hook/"), body, dict(self.headers)))
        elif self.path == "/secrets":
            told = json.loads(body)
            secrets[told["hook"]] = [secret["standard"] for secret in told["secrets"]]
            self.answer(200, {})
        else:
            self.answer(200, {"standard": signed(**json.loads(body))})

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
