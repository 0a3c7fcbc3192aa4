"""Everything of keras_lr that depends on private parts of Keras, one file a subject."""
