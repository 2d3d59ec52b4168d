-- A running training saves a state after its next step.
local os = require("os")

if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["lora-operator.io/checkpoint-requested-at"] = os.date("!%Y-%m-%dT%XZ")
return obj
