"""How the model in xenc/default_model was made: `make train` repeats it."""
