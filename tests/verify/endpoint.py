"""An endpoint for webhooks: answers 500 below /fail, 200 after a while below /slow, else 200. Prints where it listens.

As a proxy (`targets.proxy`) it answers by itself whatever is asked of others, so that nothing leaves this machine.
"""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# More than the 5 s from which on an answer is a slow one.
SLOW_SECONDS = 6


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("/slow"):
            time.sleep(SLOW_SECONDS)
        answer = b"no\n" if self.path.startswith("/fail") else b"ok\n"
        self.send_response(500 if answer == b"no\n" else 200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Whoever asked has gone away meanwhile: that is no fault."""


server = Server(("127.0.0.1", 0), Endpoint)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
