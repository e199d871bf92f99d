"""Conversations: prompt formats, the context window, the tree of messages, personas and the store."""
