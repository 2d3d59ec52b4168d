-- The pod saves its state and stops; the training never starts again. This cannot be taken back.
obj.spec.cancel = true
return obj
