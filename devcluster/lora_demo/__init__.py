"""The demo: cluster, object store, operator and one training on this machine (`make demo`)."""
