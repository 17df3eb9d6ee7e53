"""An endpoint for webhooks: answers 500 below /fail, else 200. Prints where it listens.

As a proxy (`targets.proxy`) it answers by itself whatever is asked of others, so that nothing leaves this machine.
"""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
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


server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
