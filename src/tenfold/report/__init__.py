"""Drawing of results: figures, tables, one self-contained page, the model card, filled checklists.

It must not know a network, a statistic or a modality: it reads the files of a run and nothing else. Nothing is imported
here, because the server takes words from this package and must not load what draws.
"""
