"""Where each wire is spoken to, for a test that sends a request of its own."""

PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
