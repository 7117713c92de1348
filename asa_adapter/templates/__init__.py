"""Chat templates: chats of which they keep the tool calls, and a stranger's, rendered in a process of its own."""
