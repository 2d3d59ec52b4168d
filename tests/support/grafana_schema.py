"""What Grafana understands of a dashboard's JSON, as far as ours need it: nothing else may be in it.

After https://github.com/grafana/grafana/tree/main/kinds/dashboard and the kinds of the four panels that we use. `make
dashboards-typecheck` compares the same JSON with Grafana's own types.
"""

from typing import Any

import jsonschema

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}


def closed(required: str = "", **fields: Any) -> Schema:
    """An object with these fields and no others; the names in `required` must be there."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def one_of(*values: Any) -> Schema:
    return {"enum": list(values)}


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


SOURCE = closed("type uid", type=one_of("prometheus"), uid=one_of("${datasource}"))
PLACE = closed(
    "x y w h",
    x={**WHOLE, "minimum": 0, "maximum": 23},
    y={**WHOLE, "minimum": 0},
    w={**WHOLE, "minimum": 1, "maximum": 24},
    h={**WHOLE, "minimum": 1},
)
COLOR = closed(
    "mode",
    mode=one_of("fixed", "thresholds", "palette-classic"),
    fixedColor=one_of("green", "yellow", "orange", "red", "blue", "purple", "gray", "text"),
)
MAPPING = closed(
    "type options",
    type=one_of("value"),
    options={"type": "object", "additionalProperties": closed("text index", text=TEXT, color=TEXT, index=WHOLE)},
)
UNITS = one_of(
    "short", "none", "s", "dtdhms", "bytes", "Bps", "ops", "reqps", "percentunit", "sci",
)  # fmt: skip
THRESHOLDS = closed(
    "mode steps",
    mode=one_of("absolute"),
    steps=many(closed("value color", value={"type": ["number", "null"]}, color=TEXT)),
)
CELL = closed("type", type=one_of("auto", "gauge", "color-background"), mode=TEXT, valueDisplayMode=TEXT)
CUSTOM = {
    "timeseries": closed(
        "drawStyle lineWidth",
        drawStyle=one_of("line", "bars", "points"),
        lineWidth=WHOLE,
        lineInterpolation=one_of("linear", "smooth", "stepBefore", "stepAfter"),
        fillOpacity={**NUMBER, "minimum": 0, "maximum": 100},
        gradientMode=one_of("none", "opacity", "hue", "scheme"),
        showPoints=one_of("auto", "never", "always"),
        pointSize=NUMBER,
        spanNulls={"type": ["boolean", "number"]},
        scaleDistribution=closed("type", type=one_of("linear", "log"), log=NUMBER),
        stacking=closed("mode group", mode=one_of("none", "normal", "percent"), group=TEXT),
        thresholdsStyle=closed("mode", mode=one_of("off", "line", "dashed", "area")),
    ),
    "table": closed("align cellOptions inspect", align=TEXT, filterable=FLAG, cellOptions=CELL, inspect=FLAG),
    "stat": closed(),
    "bargauge": closed(),
}
LEGEND = closed(
    "showLegend displayMode placement calcs",
    showLegend=FLAG,
    displayMode=one_of("list", "table", "hidden"),
    placement=one_of("bottom", "right"),
    calcs=TEXTS,
)
REDUCE = closed("calcs", calcs=TEXTS, fields=TEXT, values=FLAG)
OPTIONS = {
    "timeseries": closed(
        "legend tooltip",
        legend=LEGEND,
        tooltip=closed("mode sort", mode=one_of("single", "multi", "none"), sort=one_of("asc", "desc", "none")),
    ),
    "table": closed(
        "showHeader frameIndex",
        showHeader=FLAG,
        frameIndex=WHOLE,
        cellHeight=one_of("sm", "md", "lg"),
        sortBy=many(closed("displayName", displayName=TEXT, desc=FLAG)),
    ),
    "stat": closed(
        "reduceOptions orientation textMode colorMode graphMode justifyMode wideLayout",
        reduceOptions=REDUCE,
        orientation=one_of("auto", "horizontal", "vertical"),
        textMode=one_of("auto", "value", "name", "value_and_name", "none"),
        colorMode=one_of("value", "background", "none"),
        graphMode=one_of("area", "line", "none"),
        justifyMode=one_of("auto", "center"),
        wideLayout=FLAG,
        showPercentChange=FLAG,
        percentChangeColorMode=one_of("standard", "inverted", "same_as_value"),
    ),
    "bargauge": closed(
        "reduceOptions orientation displayMode valueMode namePlacement showUnfilled sizing",
        reduceOptions=REDUCE,
        orientation=one_of("auto", "horizontal", "vertical"),
        displayMode=one_of("basic", "gradient", "lcd"),
        valueMode=one_of("color", "text", "hidden"),
        namePlacement=one_of("auto", "top", "left", "hidden"),
        showUnfilled=FLAG,
        sizing=one_of("auto", "manual"),
        minVizWidth=NUMBER,
        minVizHeight=NUMBER,
        maxVizHeight=NUMBER,
        legend=LEGEND,
    ),
}
TARGET = closed(
    "refId expr datasource",
    refId={"type": "string", "pattern": "^[A-Z]$"},
    expr=TEXT,
    datasource=SOURCE,
    editorMode=one_of("code", "builder"),
    legendFormat=TEXT,
    instant=FLAG,
    range=FLAG,
    format=one_of("time_series", "table"),
)
OVERRIDE = closed(
    "matcher properties",
    matcher=closed("id options", id=one_of("byName"), options=TEXT),
    properties=many(
        closed(
            "id value",
            id=one_of("unit", "color", "decimals", "max", "mappings", "custom.width", "custom.cellOptions"),
            value={},
        )
    ),
)
TRANSFORMATION = closed(
    "id options",
    id=one_of("merge", "filterFieldsByName", "organize"),
    options={"type": "object"},
)


def _panel(kind: str) -> Schema:
    defaults = closed(
        "unit color thresholds custom",
        unit=UNITS,
        decimals=WHOLE,
        min=NUMBER,
        max=NUMBER,
        color=COLOR,
        mappings=many(MAPPING),
        thresholds=THRESHOLDS,
        custom=CUSTOM[kind],
    )
    return closed(
        "id type title description gridPos targets fieldConfig options",
        id=WHOLE,
        type=one_of(kind),
        title=TEXT,
        description=TEXT,
        datasource=SOURCE,
        gridPos=PLACE,
        targets={**many(TARGET), "minItems": 1},
        fieldConfig=closed("defaults overrides", defaults=defaults, overrides=many(OVERRIDE)),
        options=OPTIONS[kind],
        transformations=many(TRANSFORMATION),
    )


ROW = closed(
    "id type title collapsed gridPos panels",
    id=WHOLE,
    type=one_of("row"),
    title=TEXT,
    collapsed=FLAG,
    gridPos=PLACE,
    panels={"type": "array", "maxItems": 0},
)
PANELS = {"row": ROW, **{kind: _panel(kind) for kind in OPTIONS}}
VARIABLE = closed(
    "name label type query hide",
    name=TEXT,
    label=TEXT,
    description=TEXT,
    type=one_of("query", "datasource", "custom"),
    datasource=SOURCE,
    query={"type": ["string", "object"]},
    refresh=one_of(0, 1, 2),
    regex=TEXT,
    sort=WHOLE,
    multi=FLAG,
    includeAll=FLAG,
    allValue=TEXT,
    current=closed("text value", text={}, value={}, selected=FLAG),
    options=many(closed("text value", text=TEXT, value=TEXT, selected=FLAG)),
    hide=one_of(0, 1, 2),
    skipUrlSync=FLAG,
)
MARK = closed(
    "name datasource enable iconColor target",
    name=TEXT,
    datasource=SOURCE,
    enable=FLAG,
    hide=FLAG,
    iconColor=TEXT,
    target=closed("refId expr", refId=TEXT, expr=TEXT, interval=TEXT),
    titleFormat=TEXT,
    textFormat=TEXT,
    tagKeys=TEXT,
    useValueForTime=FLAG,
)
LINK = closed(
    "title type tags",
    title=TEXT,
    type=one_of("link", "dashboards"),
    tags=TEXTS,
    asDropdown=FLAG,
    includeVars=FLAG,
    keepTime=FLAG,
    icon=TEXT,
    targetBlank=FLAG,
    tooltip=TEXT,
    url=TEXT,
)
DASHBOARD = closed(
    "uid title schemaVersion panels templating time refresh",
    uid={"type": "string", "maxLength": 40, "pattern": "^[a-zA-Z0-9-_]+$"},
    title=TEXT,
    description=TEXT,
    tags=TEXTS,
    schemaVersion={**WHOLE, "minimum": 36},
    version=WHOLE,
    editable=FLAG,
    graphTooltip=one_of(0, 1, 2),
    fiscalYearStartMonth={**WHOLE, "minimum": 0, "maximum": 11},
    weekStart=TEXT,
    timezone=TEXT,
    refresh=TEXT,
    time={**closed("from to"), "properties": {"from": TEXT, "to": TEXT}},
    timepicker=closed(),
    links=many(LINK),
    annotations=closed("list", list=many(MARK)),
    templating=closed("list", list=many(VARIABLE)),
    panels={"type": "array"},
)


def problems(page: dict[str, Any]) -> list[str]:
    """What Grafana would not understand, each with its path; nothing when all is well."""
    found = [(tuple(error.path), error.message) for error in _errors(page, DASHBOARD)]
    for number, panel in enumerate(page.get("panels", ())):
        kind = panel.get("type")
        if kind not in PANELS:
            found.append((("panels", number, "type"), f"{kind!r} is no panel that is known here"))
            continue
        found += [(("panels", number, *error.path), error.message) for error in _errors(panel, PANELS[kind])]
    return [f"{'.'.join(map(str, path))}: {message}" for path, message in found]


def _errors(document: Any, schema: Schema) -> list[jsonschema.ValidationError]:
    return list(jsonschema.Draft202012Validator(schema).iter_errors(document))
