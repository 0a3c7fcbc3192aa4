"""Small tools that several packages share; none of them knows Keras models."""
