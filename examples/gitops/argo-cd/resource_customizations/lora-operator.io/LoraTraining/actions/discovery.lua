-- Which buttons there are: none once the training has ended or is being cancelled.

local actions = {}

if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, found in ipairs(obj.status.conditions) do
    if found.type == "Finished" and found.status == "True" then
      return actions
    end
  end
end
if obj.spec.cancel then
  return actions
end

if obj.spec.suspend then
  actions["resume"] = {iconClass = "fa fa-fw fa-play", displayName = "Resume"}
else
  actions["pause"] = {iconClass = "fa fa-fw fa-pause", displayName = "Pause"}
  actions["checkpoint-now"] = {iconClass = "fa fa-fw fa-save", displayName = "Checkpoint now"}
end
actions["cancel"] = {iconClass = "fa fa-fw fa-stop", displayName = "Cancel for good"}

return actions
