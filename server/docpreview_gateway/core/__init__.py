"""Translation between the docpreview contract and the cloud's wire: bytes and values in, values out, no I/O.

Clock, randomness and credentials are arguments. The messages of `docpreview.v1` are the model.
"""
