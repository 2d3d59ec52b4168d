"""Type-checks the dashboards with Grafana's own types: `make dashboards-typecheck`; needs npm and the network.

A dashboard's JSON is written as a TypeScript constant of the type that npm's @grafana/schema gives it, and each panel's
options and custom fields as constants of the types of their panel; then tsc says what does not fit. JSON holds the
values of enumerations, not their names, so every enumeration is widened to the values that it has.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_monitoring.__main__ import dashboards

PACKAGES = ("@grafana/schema@13.2.3", "typescript@7.0.2")
PANEL_TYPES = {
    "timeseries": ("TimeSeries", True),
    "stat": ("Stat", False),
    "table": ("Table", True),
    "bargauge": ("BarGauge", False),
}
"""Kind of a panel -> name of its types, and whether it has custom fields."""
_HEAD = """
import type { Dashboard, AnnotationQuery, DataQuery } from '@grafana/schema';
%(imports)s
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends Array<infer Item> ? Array<Plain<Item>> : T extends object ? { [Name in keyof T]: Plain<T[Name]> } : T;
type Page = Plain<Omit<Dashboard, 'annotations'>>;
// What the plugin for Prometheus reads beside the fields that all annotations have.
interface Asked extends DataQuery { expr: string; interval?: string }
interface Shown { titleFormat?: string; textFormat?: string; tagKeys?: string; useValueForTime?: boolean }
type Mark = Plain<AnnotationQuery<Asked>> & Shown;
"""


def module() -> str:
    """The TypeScript that says which type each part of the dashboards has."""
    imports = "\n".join(_imports())
    return "\n".join([_HEAD % {"imports": imports}, *_constants()])


def _imports() -> Iterator[str]:
    for kind, (name, _) in PANEL_TYPES.items():
        path = f"@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen"
        yield f"import type * as {name} from '{path}';"


def _constants() -> Iterator[str]:
    for number, page in enumerate(dashboards().values()):
        document = page.to_json()
        marks = document.pop("annotations")["list"]
        yield f"export const page{number}: Page = {json.dumps(document)};"
        yield f"export const marks{number}: Mark[] = {json.dumps(marks)};"
        for panel in document["panels"]:
            yield from _constants_of(panel, f"{number}_{panel['id']}")


def _constants_of(panel: dict[str, Any], suffix: str) -> Iterator[str]:
    if panel["type"] == "row":
        return
    name, has_fields = PANEL_TYPES[panel["type"]]
    yield f"export const options{suffix}: Plain<{name}.Options> = {json.dumps(panel['options'])};"
    if has_fields:
        custom = json.dumps(panel["fieldConfig"]["defaults"]["custom"])
        yield f"export const custom{suffix}: Plain<{name}.FieldConfig> = {custom};"


def check(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What tsc says of the text, with the packages installed in the folder."""
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES], cwd=folder, check=True)
    (folder / "dashboards.ts").write_text(text)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    command = ["node_modules/.bin/tsc", *options, "dashboards.ts"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def main() -> int:
    """Exit code: that of tsc; 1 as well when it overlooks a mistake that was put in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard_types", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the packages of npm lie or are put; else a temporary one")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        text = module()
        done = check(place, text)
        print(done.stdout + done.stderr, end="")
        wrong = check(place, text.replace('"drawStyle": "line"', '"drawStyle": "lines"'))
    if done.returncode == 0 and wrong.returncode == 0:
        print("tsc does not see a wrong drawStyle: the check checks nothing", file=sys.stderr)
        return 1
    if done.returncode == 0:
        count = text.count("export const")
        print(f"{len(dashboards())} dashboards: {count} values have the types of {', '.join(PACKAGES)}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
