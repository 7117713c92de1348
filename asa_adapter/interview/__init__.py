"""What is wrong with a server of OpenAI's interface: it is asked some questions, and what its answers prove is named.

No model is loaded, no tool is run, and what the server says is data: bounded, and cleaned before it is shown.
"""
