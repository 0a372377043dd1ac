"""Queries, panels and variables, from which the dashboards are made."""

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
PROBE = 'job=~"$job",instance=~"$instance",provider=~"$provider",model=~"$model",probe=~"$probe"'
PROBER = 'job=~"$job",instance=~"$instance"'
# Alerts that concern no single prober lack these labels.
ALERTS = 'alertname=~"Langmart.*",job=~"$job|",instance=~"$instance|"'
GENERATION = 'check=~"chat|stream"'

GREY = "#8e8e8e"

# Faults from the least to the most important one for a user, with the text and colour of each.
FAULTS = [
    ("none", "ok", "green"),
    ("prober", "prober", "blue"),
    ("caller", "our side", "yellow"),
    ("network", "network", "orange"),
    ("provider", "provider", "purple"),
    ("gateway", "gateway", "red"),
]


def target(expr: str, legend: str = "", instant: bool = False, table: bool = False) -> Json:
    """Returns a query of a panel; that of a table is instant."""
    return {
        "expr": expr,
        "legendFormat": legend,
        "datasource": DATASOURCE,
        "instant": instant or table,
        "range": not (instant or table),
        "editorMode": "code",
        "format": "table" if table else "time_series",
    }


def now(expr: str, legend: str = "") -> Json:
    """Returns an instant query: a series that has ended is not in its result."""
    return target(expr, legend, instant=True)


def panel(
    kind: str,
    title: str,
    description: str,
    targets: list[Json],
    width: int,
    height: int,
    unit: str = "short",
    *,
    options: Json | None = None,
    custom: Json | None = None,
    overrides: Iterable[Json] = (),
    transformations: Iterable[Json] = (),
    interval: str | None = None,
    **defaults: Any,
) -> Json:
    """Returns a panel; its place is assigned by `dashboard`."""
    for index, entry in enumerate(targets):
        entry["refId"] = chr(ord("A") + index)
    defaults.setdefault("noValue", "no data")
    found = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": unit, "custom": custom or {}, **defaults},
            "overrides": list(overrides),
        },
        "options": options or {},
        "size": (width, height),
    }
    if transformations:
        found["transformations"] = list(transformations)
    if interval:
        found["interval"] = interval
    return found


def lines(
    title: str,
    description: str,
    targets: list[Json],
    width: int = 8,
    height: int = 8,
    unit: str = "short",
    *,
    custom: Json | None = None,
    legend: str | None = "lastNotNull",
    **more: Any,
) -> Json:
    """Returns a panel of lines over time."""
    more.setdefault("color", {"mode": "palette-classic"})
    drawn = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 0,
        "pointSize": 4,
        "showPoints": "auto",
        # A probe with an interval of some minutes leaves gaps between its samples.
        "spanNulls": 900_000,
        # Beside a soft minimum, Grafana ignores `min`.
        **({} if "min" in more else {"axisSoftMin": 0}),
        **(custom or {}),
    }
    options = {
        "legend": {
            "displayMode": "list",
            "placement": "bottom",
            "calcs": [legend] if legend else [],
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel(
        "timeseries", title, description, targets, width, height, unit,
        options=options, custom=drawn, **more,
    )  # fmt: skip


def bars(
    title: str, description: str, targets: list[Json], width: int = 8, height: int = 8, **more: Any
) -> Json:
    """Returns a panel of stacked bars, each the number of events in five minutes or more."""
    custom = {
        "drawStyle": "bars",
        "fillOpacity": 80,
        "showPoints": "never",
        "spanNulls": False,
        "barMaxWidth": 20,
        "stacking": {"mode": "normal", "group": "A"},
        "axisSoftMax": 1,
    }
    more.setdefault("noValue", "none recorded")
    # Most of what is counted is a failure, which must not be green.
    more.setdefault("color", {"mode": "shades", "fixedColor": "red"})
    return lines(
        title, description, targets, width, height,
        custom=custom, legend="sum", interval="5m", decimals=0, **more,
    )  # fmt: skip


def count(metric: str, by: str, selector: str = PROBE) -> str:
    """Returns the number of events since the previous bar, by some labels.

    `increase` extrapolates to the ends of its range, hence the rounding.
    """
    return f"round(sum by ({by}) (increase({metric}{{{selector}}}[$__rate_interval]))) > 0"


def stat(
    title: str, description: str, targets: list[Json], width: int, height: int = 4, **more: Any
) -> Json:
    """Returns a panel of single values."""
    more.setdefault("color", {"mode": "thresholds"})
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": more.pop("orientation", "vertical"),
        "graphMode": "none",
        "colorMode": more.pop("colored", "background_solid"),
        "textMode": more.pop("text", "auto"),
        "justifyMode": "center",
        "text": {"titleSize": more.pop("names", 14), "valueSize": more.pop("size", 34)},
    }
    return panel("stat", title, description, targets, width, height, options=options, **more)


def gauges(
    title: str, description: str, targets: list[Json], width: int, height: int, **more: Any
) -> Json:
    """Returns a panel of horizontal bars, one for each value."""
    more.setdefault("color", {"mode": "thresholds"})
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "left",
        "showUnfilled": True,
        "text": {"titleSize": 12},
        "sizing": "manual",
        "minVizHeight": 18,
        "maxVizHeight": 28,
        "minVizWidth": 8,
    }
    return panel("bargauge", title, description, targets, width, height, options=options, **more)


def timeline(
    title: str, description: str, targets: list[Json], width: int, height: int, **more: Any
) -> Json:
    """Returns a panel of states over time."""
    more.setdefault("color", {"mode": "thresholds"})
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 85, "lineWidth": 0, "spanNulls": False}
    return panel(
        "state-timeline", title, description, targets, width, height,
        options=options, custom=custom, **more,
    )  # fmt: skip


def table(
    title: str,
    description: str,
    targets: list[Json],
    width: int,
    height: int,
    columns: list[Json],
    **more: Any,
) -> Json:
    """Returns a table with the given columns, in their order."""
    names = [entry["matcher"]["options"] for entry in columns]
    transformations = [
        *([{"id": "merge", "options": {}}] if len(targets) > 1 else []),
        {"id": "filterFieldsByName", "options": {"include": {"names": names}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "renameByName": {},
                "indexByName": {name: index for index, name in enumerate(names)},
            },
        },
    ]
    options = {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}}
    if "sort" in more:
        options["sortBy"] = [more.pop("sort")]
    return panel(
        "table", title, description, targets, width, height,
        options=options, overrides=columns, transformations=transformations,
        custom={"align": "left", "cellOptions": {"type": "auto"}, "filterable": False},
        color={"mode": "thresholds"}, thresholds=steps((None, "text")),
        **more,
    )  # fmt: skip


def override(name: str, **properties: Any) -> Json:
    """Returns the properties of one field; an underscore stands for a dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [
            {"id": key.replace("_", "."), "value": value} for key, value in properties.items()
        ],
    }


def column(name: str, title: str, width: int | None = None, **properties: Any) -> Json:
    """Returns a column of a table: the field, its heading and its properties."""
    if width:
        properties["custom_width"] = width
    # Otherwise an empty cell has the text of an empty table.
    properties["noValue"] = "–"
    return override(name, displayName=title, **properties)


def hidden(name: str) -> Json:
    """Returns a column that is not shown, for the links of others."""
    return override(name, custom_hidden=True, custom_hideFrom={"viz": True})


def link(title: str, url: str, new_tab: bool = False) -> Json:
    """Returns a data link."""
    return {"title": title, "url": url, "targetBlank": new_tab}


def steps(*pairs: tuple[float | None, str]) -> Json:
    """Returns colours by value; the value of the first pair is None."""
    return {
        "mode": "absolute",
        "steps": [{"color": color, "value": value} for value, color in pairs],
    }


def painted(pattern: str, color: str) -> Json:
    """Returns the colour of the series whose names match a pattern."""
    return {
        "matcher": {"id": "byRegexp", "options": f"/{pattern}/"},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
    }


WRONG_IF_ANY = steps((None, "green"), (1, "red"))
DOUBTFUL_IF_ANY = steps((None, "green"), (1, "orange"))
PLAIN = steps((None, "text"))


def states(*pairs: tuple[str, str, str]) -> list[Json]:
    """Returns text and colour of single values."""
    return [
        {
            "type": "value",
            "options": {
                value: {"text": text, "color": color, "index": index}
                for index, (value, text, color) in enumerate(pairs)
            },
        }
    ]


def row(title: str) -> Json:
    """Returns a row with a title."""
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "size": (24, 1)}


def place(panels: list[Json]) -> list[Json]:
    """Places panels from left to right."""
    x = y = tallest = 0
    placed = []
    for number, entry in enumerate(panels, 1):
        width, height = entry.pop("size")
        if x + width > 24:
            x, y, tallest = 0, y + tallest, 0
        placed.append({"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **entry})
        x, tallest = x + width, max(tallest, height)
    return placed


def annotation(name: str, expr: str, color: str, title: str, text: str, **more: Any) -> Json:
    """Returns marks on the time axis of all panels."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expr,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "",
        **more,
    }


def annotations() -> list[Json]:
    """Returns the marks of all dashboards: reloads, restarts, and alerts that page."""
    return [
        annotation(
            "Reloads",
            f"langmart_prober_config_last_reload_success_timestamp_seconds{{{PROBER}}} * 1000",
            "blue",
            "Configuration loaded",
            "{{instance}}",
            useValueForTime=True,
        ),
        annotation(
            "Restarts",
            f"process_start_time_seconds{{{PROBER}}} * 1000",
            "purple",
            "Prober started",
            "{{instance}}",
            useValueForTime=True,
        ),
        annotation(
            "Critical alerts",
            f'ALERTS{{{ALERTS},alertstate="firing",severity="critical"}}',
            "red",
            "{{alertname}}",
            "{{provider}} {{probe}} {{instance}}",
        ),
    ]


def dashboard(
    uid: str, title: str, description: str, variables: list[Json], panels: list[Json]
) -> Json:
    """Returns a dashboard."""
    source = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "current": {},
    }
    dashboards = {
        "title": "langmart-prober",
        "type": "dashboards",
        "tags": ["langmart-prober"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "icon": "external link",
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["langmart-prober"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "fiscalYearStartMonth": 0,
        "time": {"from": "now-6h", "to": "now"},
        "links": [dashboards],
        "annotations": {"list": annotations()},
        "templating": {"list": [source, *variables]},
        "panels": place(panels),
    }


def variable(name: str, query: str, all_value: str | None = None, all_first: bool = True) -> Json:
    """Returns a variable whose values come from a query."""
    found: Json = {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": all_first,
        "current": {"text": ["All"], "value": ["$__all"]} if all_first else {},
        "hide": 0,
    }
    if all_value:
        found["allValue"] = all_value
    return found


def variables(of_probes: bool = True, all_probes: bool = True) -> list[Json]:
    """Returns the variables that select series.

    All jobs are the jobs of probers, not every job, since some queries use `up`.
    """
    found = [
        variable("job", "label_values(langmart_prober_build_info, job)"),
        variable("instance", 'label_values(langmart_prober_build_info{job=~"$job"}, instance)'),
    ]
    if of_probes:
        selected = 'job=~"$job",instance=~"$instance"'
        found += [
            variable(
                "provider", f"label_values(langmart_probe_info{{{selected}}}, provider)", ".*"
            ),
            variable(
                "model",
                f'label_values(langmart_probe_info{{{selected},provider=~"$provider"}}, model)',
                ".*",
            ),
            variable(
                "probe",
                f"label_values(langmart_probe_info{{{selected},"
                'provider=~"$provider",model=~"$model"}, probe)',
                ".*" if all_probes else None,
                all_probes,
            ),
        ]
    return found


def fault_state(by: str) -> str:
    """Returns an expression for the most important fault of the last runs, as a number."""
    parts = [
        f'{number} * (langmart_probe_last_run_fault{{{PROBE},fault="{name}"}} == 1)'
        for number, (name, _, _) in enumerate(FAULTS)
    ]
    parts.append(f"-1 * langmart_probe_info{{{PROBE}}}")
    return f"max by ({by}) (\n  " + "\n  or ".join(parts) + "\n)"


def fault_states() -> list[Json]:
    """Returns text and colour of `fault_state`."""
    known = [(str(number), text, color) for number, (_, text, color) in enumerate(FAULTS)]
    return states(("-1", "not run yet", GREY), *known)


def quantile(share: float, metric: str, by: str, window: str, selector: str = PROBE) -> str:
    """Returns a percentile, from classic buckets or, if there are none, native histograms."""
    return (
        f"histogram_quantile({share}, sum by (le, {by})"
        f" (rate({metric}_bucket{{{selector}}}[{window}])))"
        f"\nor\nhistogram_quantile({share}, sum by ({by}) (rate({metric}{{{selector}}}[{window}])))"
    )
