"""Whether model, prompts and tools are those that an adapter was fitted with; nothing here changes a model."""
