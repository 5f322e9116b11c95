"""Fitting: one loop, one store, stages and folds. It must not know study files, statistics or reports."""
