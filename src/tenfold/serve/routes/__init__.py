"""The addresses of the server, one file a kind of visitor.

It must not know how a case is answered.
"""
