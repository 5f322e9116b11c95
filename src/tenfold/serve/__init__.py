"""The hospital's door: bundles behind pages and an API, on this machine.

It must not know how a model was fitted. Nothing is imported here, because the child process that decodes strangers'
files starts from this package and must not load torch.
"""
