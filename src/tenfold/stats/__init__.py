"""What a number is: every figure of a predictions table, with interval, method and n.

It must not know networks, images, files or torch: it eats `PredictionTable` and plain numpy arrays.
"""
