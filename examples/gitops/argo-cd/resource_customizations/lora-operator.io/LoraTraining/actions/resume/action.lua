-- The training goes on from the step it was at.
obj.spec.suspend = false
return obj
