"""How Argo CD runs Lua for an object: health, discovery of actions, actions; for tests.

Lua 5.1 with the libraries base and table, and of `os` the time; no strings, no files, no environment
(argo-cd/util/lua/lua.go, without useOpenLibs). An empty table comes back as an empty list; where the object had a map,
Argo CD takes it for that map.
"""

from pathlib import Path
from typing import Any

from lupa import lua51

Manifest = dict[str, Any]
KEPT = ("assert", "error", "ipairs", "next", "pairs", "select", "tonumber", "tostring", "type", "unpack", "table")
MOMENT = "2026-11-23T06:07:08Z"
"""What `os.date` gives in tests."""
_SANDBOX = """
function(kept, moment)
  local everything = _G
  for name in pairs(everything) do
    if not kept[name] then everything[name] = nil end
  end
  local clock = {date = function(format)
    assert(format == "!%Y-%m-%dT%XZ", "tests know one format")
    return moment
  end}
  everything.require = function(name)
    assert(name == "os", "there is no module " .. name)
    return clock
  end
end
"""


class LuaError(Exception):
    """The script failed, as Argo CD would tell it."""


def run(script: str, obj: Manifest) -> Any:
    """What the script returns for the object. Raises LuaError."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    compiled = lua.compile(script)
    lua.eval(_SANDBOX)(lua.table_from(dict.fromkeys(KEPT, True)), MOMENT)
    lua.globals()["obj"] = _to_lua(lua, obj)
    try:
        return _like(_to_python(compiled()), obj)
    except lua51.LuaError as error:
        raise LuaError(str(error)) from error


def health(folder: Path, obj: Manifest) -> tuple[str, str]:
    """Status and message of the object; one that is being deleted is judged before any script."""
    if "deletionTimestamp" in obj["metadata"]:
        return "Progressing", "Pending deletion"
    found = run((folder / "health.lua").read_text(), obj)
    return found["status"], found["message"]


def actions(folder: Path, obj: Manifest) -> dict[str, Manifest]:
    """The actions that are offered, by name."""
    found = run((folder / "actions" / "discovery.lua").read_text(), obj)
    return {} if found == [] else dict(found)


def act(folder: Path, action: str, obj: Manifest) -> Manifest:
    """The object as the action wants it; Argo CD patches what differs."""
    wanted: Manifest = run((folder / "actions" / action / "action.lua").read_text(), obj)
    return wanted


def _to_lua(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _to_lua(lua, found) for key, found in value.items()})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, found) for found in value])
    return value


def _to_python(value: Any) -> Any:
    if lua51.lua_type(value) != "table":
        return value
    if all(isinstance(key, int) for key in value):
        return [_to_python(value[index]) for index in sorted(value)]
    return {key: _to_python(found) for key, found in value.items()}


def _like(new: Any, old: Any) -> Any:
    """`new`, with the empty lists that were maps before as maps again."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _like(found, old.get(key)) for key, found in new.items()}
    if isinstance(new, list) and isinstance(old, list):
        return [_like(found, was) for found, was in zip(new, old + [None] * len(new), strict=False)]
    return old if new == [] and old == {} else new
