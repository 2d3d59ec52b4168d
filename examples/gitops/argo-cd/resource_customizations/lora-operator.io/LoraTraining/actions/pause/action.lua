-- The pod saves its state and stops; the GPU is free.
obj.spec.suspend = true
return obj
