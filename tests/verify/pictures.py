"""Loads an engine for two minutes, and draws panels of a dashboard from what Prometheus has of it.

One endpoint in five fails until it is mended; before that, what `posthaste status` shows is printed. Redis crashes once.

pictures.py PROGRAM API ADMIN_KEY ENDPOINT PROMETHEUS DATA_DIR DASHBOARD PICTURE
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from load import Engine, Prometheus

PANELS = ["Flow", "Attempts by answer", "Latency of endpoints", "Backlog"]
SECONDS, CRASH_AT, MEND_AT = 120, 40, 80
WINDOW = "10s"
# As Grafana's dark theme draws.
BACKGROUND, PANEL, GRID, TEXT = "#111217", "#181b1f", "#2c3235", "#ccccdc"
COLOURS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff"]
UNITS = {"ops": lambda v: f"{v:g} /s", "s": lambda v: f"{v * 1000:g} ms" if v < 1 else f"{v:g} s", "short": "{:g}".format}


def show_status():
    environment = os.environ | {"POSTHASTE_DATA_DIR": data_dir}
    subprocess.run([program, "status"], env=environment, cwd=data_dir, check=True)


def load(engine, endpoint):
    """Events come and go like the tide."""
    for name in ("orders", "mail", "crm", "audit"):
        engine.call("POST", "/api/v1/webhooks", {"url": f"{endpoint}/{name}", "events": ["*"]})
    retry = {"kind": "exponential", "base_ms": 2000, "factor": 2}
    failing = {"url": f"{endpoint}/fail", "events": ["order.*"], "retry": retry, "retry_count": 20}
    failing = engine.call("POST", "/api/v1/webhooks", failing)["id"]
    started, crashed, mended = time.time(), False, False
    while (passed := time.time() - started) < SECONDS:
        for number in range(round(12 + 8 * math.sin(passed / 12))):
            engine.publish(["order.paid" if number % 4 == 0 else "message.created"], number)
        if not crashed and passed > CRASH_AT:
            engine.crash_redis()
            crashed = True
        if not mended and passed > MEND_AT:
            show_status()
            engine.call("PATCH", f"/api/v1/webhooks/{failing}", {"url": f"{endpoint}/billing"})
            mended = True
        time.sleep(0.1)
    return started


def lines(prometheus, panel, started, ended):
    for target in panel["targets"]:
        query = target["expr"].replace("$job", "posthaste").replace("$__rate_interval", WINDOW)
        for series in prometheus.ask_over(query, started, ended):
            name = target["legendFormat"]
            for label, value in series["metric"].items():
                name = name.replace("{{%s}}" % label, value)
            points = [(float(at) - started, float(value)) for at, value in series["values"]]
            # What never happened would only be a name more.
            if any(value for _, value in points):
                yield name, points


def draw(axes, panel, found):
    axes.set_facecolor(PANEL)
    axes.set_title(panel["title"], loc="left", color=TEXT, fontsize=11, fontweight="bold")
    for (name, points), colour in zip(found, COLOURS * 2):
        axes.plot(*zip(*points), color=colour, linewidth=1.3, label=name)
        axes.fill_between(*zip(*points), color=colour, alpha=0.08)
    unit = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit(value)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}"))
    axes.set_xlim(0, SECONDS)
    axes.set_ylim(bottom=0)
    axes.tick_params(colors=TEXT, labelsize=8, length=0)
    axes.grid(color=GRID, linewidth=0.6)
    for side in axes.spines.values():
        side.set_color(GRID)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4, fontsize=8, frameon=False, labelcolor=TEXT)


program, api, admin_key, endpoint, url, data_dir, dashboard, picture = sys.argv[1:]
prometheus = Prometheus(url)
started = load(Engine(api, admin_key, data_dir), endpoint)
panels = {panel["title"]: panel for panel in json.loads(Path(dashboard).read_text())["panels"]}
figure, places = plt.subplots(2, 2, figsize=(14, 8), facecolor=BACKGROUND)
for title, axes in zip(PANELS, places.flat):
    found = list(lines(prometheus, panels[title], started, started + SECONDS))
    assert found, f"{title}: no data"
    draw(axes, panels[title], found)
figure.tight_layout(pad=1.5, h_pad=2.5)
Path(picture).parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=90, facecolor=BACKGROUND)
print(f"{picture}: {', '.join(PANELS)}")
