"""Everything of keras_lr that depends on private parts of Keras, one file a subject.

`tests/test_keras_private.py` names each of these parts and what breaks without it.

Parts of Keras: `optimizers`, `layers` (with the graph of a model), `losses`, `metrics`, `building`,
`trainer`, `callbacks`, `epochs` (the batches of `fit`), `saving`, `distribution`, `replicas`, and
`frames` (callers that Keras does not pass on).

The state of a model: `object_graph` finds it, `values`, `tensors`, `python_state` and
`random_state` copy it, each its kind, and `snapshot` restores it.
"""
