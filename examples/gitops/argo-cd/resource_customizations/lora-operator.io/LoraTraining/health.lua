-- Health of a LoraTraining: Healthy when it has trained, Degraded when somebody must act, Suspended in a pause, else
-- Progressing. Sync waves wait for Healthy. Needs no library of Lua, so Argo CD runs it as it is.

local function condition(kind)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, found in ipairs(obj.status.conditions) do
      if found.type == kind then
        return found
      end
    end
  end
  return {status = "Unknown", reason = "", message = ""}
end

local function holds(kind, status)
  return condition(kind).status == status
end

local function health(status, message)
  return {status = status, message = message}
end

local function told(kind)
  local found = condition(kind)
  return found.reason .. ": " .. (found.message or "")
end

local status = obj.status
if status == nil or (status.observedGeneration or 0) == 0 then
  return health("Progressing", "the operator has not seen it yet")
end
if holds("Finished", "True") then
  if holds("Succeeded", "True") then
    return health("Healthy", told("Succeeded"))
  end
  return health("Degraded", told("Succeeded"))
end
if obj.metadata.generation ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "the operator has not seen the last change yet")
end
if holds("Accepted", "False") then
  return health("Degraded", told("Accepted"))
end
if condition("Succeeded").reason == "Cancelling" then
  return health("Progressing", told("Succeeded"))
end
if holds("Suspended", "True") then
  return health("Suspended", told("Suspended"))
end
if holds("Running", "True") then
  local summary = status.summary or {}
  local message = "epoch " .. (summary.epoch or "?") .. ", " .. (summary.progress or "?")
  if summary.left ~= nil and summary.left ~= "" then
    message = message .. ", " .. summary.left .. " left"
  end
  return health("Progressing", message)
end
if holds("Scheduled", "True") then
  return health("Progressing", told("Running"))
end
return health("Progressing", told("Scheduled"))
