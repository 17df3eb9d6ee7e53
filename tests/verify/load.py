"""An engine under load, and the Prometheus that scrapes it, for the scripts beside this one."""

import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request


class Engine:
    """A running `serve`, by its API; its own Redis is in a folder."""

    def __init__(self, api, admin_key, data_dir):
        self.api, self.admin_key, self.data_dir = api, admin_key, data_dir

    def call(self, method, path, body=None):
        headers = {"authorization": f"Bearer {self.admin_key}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def publish(self, types, data):
        """Publishes an event of each type; while Redis is away they are refused, which is no fault here."""
        try:
            self.call("POST", "/api/v1/events/batch", [{"type": kind, "data": data} for kind in types])
        except (urllib.error.HTTPError, OSError) as error:
            print(f"not published: {error}", file=sys.stderr)

    def crash_redis(self):
        """Kills its Redis, which it then starts again."""
        link = socket.socket(socket.AF_UNIX)
        link.connect(os.path.join(self.data_dir, "redis.sock"))
        link.sendall(b"INFO server\r\n")
        said = link.recv(65536).decode()
        pid = next(line.split(":")[1] for line in said.splitlines() if line.startswith("process_id:"))
        os.kill(int(pid), signal.SIGKILL)


class Prometheus:
    def __init__(self, url):
        self.url = url

    def ask(self, query):
        """What a query finds now. A quotient of nothing by nothing is no data."""
        found = self._get("query", query=query)
        return [series for series in found if series["value"][1] != "NaN"]

    def ask_over(self, query, start, end):
        """What it found in each second from `start` to `end`, without gaps."""
        found = self._get("query_range", query=query, start=start, end=end, step=1)
        for series in found:
            series["values"] = [point for point in series["values"] if point[1] != "NaN"]
        return [series for series in found if series["values"]]

    def _get(self, what, **parameters):
        url = f"{self.url}/api/v1/{what}?" + urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(url, timeout=30) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]["result"]
