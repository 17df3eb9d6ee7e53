"""Causes each alert in a real run, and waits until a real Prometheus says that it fires.

alerts.py PROGRAM ENDPOINT RULES FOLDER

Each installation, a job of its own to Prometheus, has a Redis and processes of its own. All work well at first, and nothing
may fire. Then each suffers what its name says, and just what that is to cause may fire.

An hour of the rules passes in a minute: all their durations are a 60th, and nothing else in them is changed. The engine's
own times are what they are, so that its breaker, which opens after ten seconds, here does so after ten minutes.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

program, endpoint, rules, folder = sys.argv[1:3] + [Path(argument) for argument in sys.argv[3:]]
ADMIN_KEY = "verify-" + os.urandom(16).hex()
FASTER = 60
# Seconds: to start, without an alert, and until all have fired.
PATIENCE, QUIET, DEADLINE = 60, 20, 200
started = []
ports_given = set()
load_goes_on = threading.Event()


def free_port():
    """A port that nobody has, nor was given before: who was may not listen yet."""
    while True:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        if port not in ports_given:
            ports_given.add(port)
            return port


def start(name, *command, **environment):
    """Starts a program whose log is a file of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("POSTHASTE_")} | environment
    with open(folder / f"{name}.log", "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    started.append(process)
    return process


def wait_for(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.2)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


class Installation:
    def __init__(self, name, *roles):
        self.name, self.load, self.processes = name, ["good"], {}
        (folder / name).mkdir()
        self.socket = str(folder / name / "redis.sock")
        self.redis = start(
            f"{name}-redis", shutil.which("redis-server") or "valkey-server",
            *("--port", "0", "--unixsocket", self.socket, "--dir", str(folder / name), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"),
        )
        self.api = f"http://127.0.0.1:{(port := free_port())}"
        self.settings = {
            "POSTHASTE_REDIS__URL": f"unix://{self.socket}",
            "POSTHASTE_DATA_DIR": str(folder / name),
            "POSTHASTE_API__LISTEN": f"127.0.0.1:{port}",
            "POSTHASTE_API__ADMIN_KEY": ADMIN_KEY,
            "POSTHASTE_TARGETS__ALLOW_HOSTS": "127.0.0.1",
            "POSTHASTE_SHUTDOWN_GRACE_SECONDS": "1",
        }
        self.ports = {role: free_port() for role in roles}
        wait_for(f"the Redis of {name}", lambda: os.path.exists(self.socket))
        for role in roles:
            self.run(role)

    def run(self, role):
        options = [] if role == "serve" else ["--wait", "--metrics-listen", f"127.0.0.1:{self.ports[role]}"]
        listen = {"POSTHASTE_METRICS__LISTEN": f"127.0.0.1:{self.ports[role]}"} if role == "serve" else {}
        self.processes[role] = start(f"{self.name}-{role}", program, role, *options, **self.settings, **listen)

    def kill(self, role):
        self.processes[role].kill()
        self.processes[role].wait()

    def is_ready(self):
        return all(answers(f"http://127.0.0.1:{port}/readyz") for port in self.ports.values())

    def post(self, path, body):
        headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
        request = urllib.request.Request(self.api + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def webhook(self, path, kind, **fields):
        self.post("/api/v1/webhooks", {"url": endpoint + path, "events": [kind], **fields})

    def ask_redis(self, command):
        """What Redis answers to a command whose answer is short."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(self.socket)
            link.sendall(command.encode() + b"\r\n")
            said = link.recv(65536).decode()
        assert not said.startswith("-"), f"{command}: {said}"
        return said

    def keep_publishing(self):
        """One event of each kind in each half second; while it is refused, that is what others are to notice."""
        while load_goes_on.is_set():
            try:
                self.post("/api/v1/events/batch", [{"type": kind, "data": 1} for kind in self.load])
            except OSError:
                pass
            time.sleep(0.5)


def fail(it):
    for count in (0, 2):
        for number in range(5):
            it.webhook(f"/fail/{count}-{number}", "bad", retry_count=count)
    it.load = ["good", "bad", "bad"]


def answer_slowly(it):
    for number in range(3):
        it.webhook(f"/slow/{number}", "slow")
    it.load = ["good", "slow"]


def lose_the_sender(it):
    it.kill("sender")


def lose_the_dispatcher(it):
    it.kill("dispatcher")


def lose_retries(it):
    """What waits for a retry is forgotten, as by a Redis that lost its last writes. A new dispatcher looks for that."""
    removed = it.ask_redis("""EVAL "return redis.call('DEL', unpack(redis.call('KEYS', '*:rty:*')))" 0""")
    assert removed != ":0\r\n", "nothing waits for a retry"
    it.run("dispatcher")


def fill_the_front_door(it):
    add = "redis.call('XADD', 'posthaste:in', '*', 'type', 'good', 'data', '1')"
    it.ask_redis(f'EVAL "for _ = 1, 1100 do {add} end return 1" 0')


def lose_redis(it):
    it.redis.kill()


def fill_redis(it):
    """To 75 %, by so much that the load will not make it 80 % within this run."""
    it.ask_redis("SETRANGE filler 50000000 x")
    used = int(re.search(r"used_memory:(\d+)", it.ask_redis("INFO memory"))[1])
    it.ask_redis(f"CONFIG SET maxmemory {used * 4 // 3}")


def make_redis_forgetful(it):
    it.ask_redis("CONFIG SET appendonly no")


# Installation, its roles, and what it suffers: each what is done, and what fires for that.
RUNS = [
    ("failing", ["serve"], [(fail, ["ErrorRate", "RetrySpike", "FailedDeliveries", "DeadLettersGrow"])]),
    ("slow", ["serve"], [(answer_slowly, ["SlowEndpoints"])]),
    ("no-sender", ["dispatcher", "sender", "api"], [(lose_the_sender, ["NotSent", "BacklogAge", "ProcessDown"])]),
    (
        "no-dispatcher",
        ["dispatcher", "sender", "sources", "api"],
        [(lose_the_dispatcher, ["DispatcherMissing", "ProcessDown"]), (lose_retries, ["DataMended"])],
    ),
    ("no-sources", ["dispatcher", "sender", "api"], [(fill_the_front_door, ["NotDispatched"])]),
    ("no-redis", ["dispatcher", "sender", "api"], [(lose_redis, ["RedisErrors", "DispatcherMissing"])]),
    ("full-redis", ["serve"], [(fill_redis, ["RedisMemory"])]),
    ("forgetful-redis", ["serve"], [(make_redis_forgetful, ["RedisNotDurable"])]),
]


def scaled(text):
    """The rules, with each duration a 60th."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def shorter(found):
        length = int(found[2]) * seconds[found[3]] / FASTER
        assert length == int(length), f"{found[0]} is no multiple of a minute"
        return f"{found[1]}{int(length)}s"

    text, count = re.subn(r"(\bfor: |\[|\boffset )(\d+)([smhd])\b", shorter, text)
    assert count >= text.count("- alert: "), "too few durations were found"
    # An age is one as well.
    text, count = re.subn(r"(_seconds\) > )(\d+)\b", lambda found: f"{found[1]}{int(found[2]) // FASTER}", text)
    assert count == 1, "the limit of an age was not found"
    return text


def start_prometheus(installations):
    (folder / "alerts.yml").write_text(scaled(rules.read_text()))
    jobs = [
        {"job_name": it.name, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in it.ports.values()]}]}
        for it in installations
    ]
    # JSON is YAML too.
    (folder / "prometheus.json").write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": jobs,
    }))
    url = f"http://127.0.0.1:{(port := free_port())}"
    start(
        "prometheus", "prometheus", f"--config.file={folder}/prometheus.json", f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )
    wait_for("Prometheus", lambda: answers(f"{url}/-/ready"))
    return url


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def firing(prometheus):
    """Which alerts fire: (installation, alert)."""
    alerts = read(f"{prometheus}/api/v1/alerts")["alerts"]
    return {
        (alert["labels"]["job"], alert["labels"]["alertname"].removeprefix("Posthaste"))
        for alert in alerts
        if alert["state"] == "firing"
    }


def set_up():
    installations = [Installation(name, *roles) for name, roles, _ in RUNS]
    for it in installations:
        wait_for(f"the processes of {it.name}", it.is_ready)
        it.webhook("/good", "good")
        # Never done within this run: something always waits for its retry, and one is too little for an alert.
        it.webhook("/fail", "once", retry={"kind": "schedule", "delays_ms": [3_600_000]})
        it.post("/api/v1/events", {"type": "once", "data": 1})
    return installations


def be_quiet(prometheus):
    targets = sum(len(roles) for _, roles, _ in RUNS)

    def all_are_up():
        return sum(one["health"] == "up" for one in read(f"{prometheus}/api/v1/targets")["activeTargets"]) == targets

    wait_for("Prometheus to ask all processes", all_are_up)
    until = time.monotonic() + QUIET
    while time.monotonic() < until:
        assert not (found := firing(prometheus)), f"without a cause: {found}"
        time.sleep(0.5)
    print(f"nothing fires while all is well: {targets} processes of {len(RUNS)} installations")


def suffer(installations, prometheus):
    """Does to each what it is to suffer, one thing after the other once all that the one before causes has fired."""
    began, caused, fired = time.monotonic(), set(), set()
    left = {it.name: (it, list(steps)) for it, (_, _, steps) in zip(installations, RUNS)}
    while True:
        for it, steps in left.values():
            if steps and all(name != it.name for name, _ in caused - fired):
                cause, alerts = steps.pop(0)
                cause(it)
                caused |= {(it.name, alert) for alert in alerts}
        for name, alert in sorted(firing(prometheus) - fired):
            assert (name, alert) in caused, f"{alert} fires for {name}, without a cause"
            print(f"{time.monotonic() - began:5.0f} s  {name:16} {alert}", flush=True)
            fired.add((name, alert))
        if caused == fired and not any(steps for _, steps in left.values()):
            return
        if time.monotonic() - began > DEADLINE:
            raise AssertionError(f"these do not fire: {sorted(caused - fired)}")
        time.sleep(0.5)


def run():
    every = set(re.findall(r"- alert: Posthaste(\w+)", rules.read_text()))
    wanted = {alert for _, _, steps in RUNS for _, alerts in steps for alert in alerts}
    assert every == wanted, f"nothing here causes, or there are no rules for: {every ^ wanted}"
    installations = set_up()
    load_goes_on.set()
    load = [threading.Thread(target=it.keep_publishing, daemon=True) for it in installations]
    for thread in load:
        thread.start()
    prometheus = start_prometheus(installations)
    be_quiet(prometheus)
    suffer(installations, prometheus)
    print(f"each of {len(every)} alerts fires")


def clean_up():
    load_goes_on.clear()
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    run()
except AssertionError as error:
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text().splitlines()[-3:]:
            print(f"{log.stem}: {line[:300]}", file=sys.stderr)
    sys.exit(str(error))
finally:
    clean_up()
