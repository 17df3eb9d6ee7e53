"""Checks dashboards: by the types of Grafana's own SDK, and by what those can't say.

dashboards.py DASHBOARD…

The SDK reads without complaint whatever it is given. What it read is compared with its types, and what it writes of that
with the file: a field that it does not know is lost on the way, and one that it wants is added.
"""

import enum
import itertools
import json
import re
import sys
import types
import typing

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import Runtime, UnknownDataquery
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What an export to others carries besides the dashboard.
OF_EXPORTS = {".__inputs", ".__requires", ".id"}
# What Grafana adds by itself, so that a file does well without.
ADDED_BY_GRAFANA = {
    *("allowCustomValue", "auto", "auto_count", "auto_min", "hidden", "percentChangeColorMode", "refresh_intervals"),
    *("repeatDirection", "showPercentChange", "text", "transparent", "value", "wideLayout"),
}
# What the SDK calls optional, and every dashboard, panel and row here has.
OF_DASHBOARDS = {"uid", "title", "description", "tags", "links", "panels", "templating"}
OF_PANELS = {"id", "type", "title", "description", "datasource", "gridPos", "fieldConfig", "options", "targets"}
OF_ROWS = {"id", "type", "title", "gridPos", "panels"}
# Variables that Grafana defines.
BUILT_IN = {"__all", "__rate_interval"}
UNITS = {value for name, value in vars(units).items() if name[0].isupper()}

register_default_plugins()


def fits(value, hint, at):
    """What of a value is not of its type, as the SDK tells that."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in (typing.Any, object) and not type(value).__module__.startswith("grafana_foundation_sdk"):
        return
    elif origin in (typing.Union, types.UnionType):
        found = [list(fits(value, one, at)) for one in inner]
        if all(found):
            # The last one is that of None, wherever the rest is optional.
            yield from found[0]
    elif origin is list and isinstance(value, list):
        for place, item in enumerate(value):
            yield from fits(item, inner[0], f"{at}[{place}]")
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from fits(item, inner[1], f"{at}.{key}")
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{at} is {value!r}"
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in [one.value for one in hint]:
            yield f"{at} is {value!r}, not one of {[one.value for one in hint]}"
    elif type(value).__module__.startswith("grafana_foundation_sdk"):
        if hint is not object and isinstance(hint, type) and not isinstance(value, hint):
            yield f"{at} is a {type(value).__name__}"
        for name, wanted in typing.get_type_hints(type(value)).items():
            yield from fits(getattr(value, name), wanted, f"{at}.{name.removesuffix('_val')}")
    elif not (type(value) is hint or hint is float and type(value) is int):
        yield f"{at} is {value!r}, not of type {getattr(hint, '__name__', hint)}"


def differences(ours, theirs, at=""):
    """What the SDK lost of a file, or had to add to it."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() - theirs.keys():
            if f"{at}.{key}" not in OF_EXPORTS:
                yield f"{at}.{key} is unknown"
        for key in theirs.keys() - ours.keys() - ADDED_BY_GRAFANA:
            yield f"{at}.{key} is missing"
        for key in ours.keys() & theirs.keys():
            yield from differences(ours[key], theirs[key], f"{at}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        for place, (one, other) in enumerate(itertools.zip_longest(ours, theirs)):
            yield from differences(one, other, f"{at}[{place}]")
    elif ours != theirs:
        yield f"{at} is {ours!r}, and {theirs!r} once read"


def without(has, wanted, at=""):
    for name in wanted - has.keys():
        yield f"{at}.{name} is missing"


def by_its_types(dashboard):
    yield from without(dashboard, OF_DASHBOARDS)
    for place, panel in enumerate(dashboard.get("panels", [])):
        yield from without(panel, OF_ROWS if panel.get("type") == "row" else OF_PANELS, f".panels[{place}]")
    try:
        read = Dashboard.from_json(dashboard)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        yield f"it cannot be read: {error!r}"
        return
    yield from fits(read, Dashboard, "")
    yield from differences(dashboard, json.loads(json.dumps(read, cls=JSONEncoder)))
    for panel in read.panels or []:
        if panel.type_val != "row" and panel.type_val not in Runtime().panelcfg_variants:
            yield f"panel {panel.id_val}: there is no panel type {panel.type_val!r}"
        for target in getattr(panel, "targets", None) or []:
            if isinstance(target, UnknownDataquery):
                yield f"panel {panel.id_val}: its data source is of no known type"


def of_panel(panel):
    if panel.get("datasource") != DATASOURCE or any(one.get("datasource") != DATASOURCE for one in panel["targets"]):
        yield "its data source is not the variable"
    if not panel.get("description", "").endswith("."):
        yield "no description says what it shows"
    if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
        yield "its numbers have no unit that Grafana knows"
    names = [target.get("refId") for target in panel["targets"]]
    if not names or len(set(names)) < len(names):
        yield "it has no queries, or two of one name"
    for target in panel["targets"]:
        if not (target.get("expr") and target.get("legendFormat")):
            yield f"query {target.get('refId')} asks for nothing, or its lines have no name"


def of_layout(panels):
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        if not columns or not rows or columns[0] < 0 or rows[0] < 0 or columns[-1] >= COLUMNS:
            yield f"panel {panel['id']} is not within the {COLUMNS} columns"
        for cell in itertools.product(columns, rows):
            if taken.setdefault(cell, panel["id"]) != panel["id"]:
                yield f"panels {taken[cell]} and {panel['id']} overlap"
                break


def of_variables(dashboard):
    defined = {one["name"] for one in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - BUILT_IN
    for name in used ^ defined:
        yield f"variable {name} is {'used, but not defined' if name in used else 'defined, but not used'}"


def by_structure(dashboard):
    panels = dashboard["panels"]
    if len({panel["id"] for panel in panels}) < len(panels):
        yield "two panels have one id"
    for panel in panels:
        if panel["type"] != "row":
            for fault in of_panel(panel):
                yield f"panel {panel['id']} ({panel.get('title')}): {fault}"
        elif panel["panels"]:
            yield f"row {panel['id']} hides panels, which nothing here looks at"
    yield from of_layout(panels)
    yield from of_variables(dashboard)


def unlinked(dashboards):
    """Each leads to all others by their tags."""
    common = set.intersection(*(set(one["tags"]) for one in dashboards.values()))
    for path, dashboard in dashboards.items():
        if not any(link["type"] == "dashboards" and set(link["tags"]) <= common for link in dashboard["links"]):
            yield f"{path}: no link leads to all others"
    if len({one["uid"] for one in dashboards.values()}) < len(dashboards):
        yield "two dashboards have one uid"


def once(pairs):
    """JSON takes the last of two fields with one name, and says nothing."""
    assert len({name for name, _ in pairs}) == len(pairs), f"a field is there twice: {[name for name, _ in pairs]}"
    return dict(pairs)


dashboards = {}
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        dashboards[path] = json.load(file, object_pairs_hook=once)
faults = []
for path, dashboard in dashboards.items():
    found = list(by_its_types(dashboard))
    # What has fields of wrong types, or lacks some, cannot be looked at further.
    faults += [f"{path}: {fault}" for fault in found or by_structure(dashboard)]
if not faults:
    faults += unlinked(dashboards)
for fault in faults:
    print(fault)
if faults or not dashboards:
    sys.exit(1)
panels = sum(len(one["panels"]) for one in dashboards.values())
print(f"{panels} panels of {len(dashboards)} dashboards are as Grafana wants them")
