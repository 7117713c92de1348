"""llama.cpp's shared library, used as it is by ctypes: model files, and what was read of sequences of tokens.

It knows no adapter, and nothing here is loaded before a file is opened.
"""
