"""Encoder-decoders: classifiers that read <eos>, and T5 that answers with a word."""
