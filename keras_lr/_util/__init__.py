"""Small tools that several packages share. None of them handles a Keras model."""
