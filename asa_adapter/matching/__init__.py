"""Whether a model, its prompts and its tools are those that an adapter was fitted with; nothing here changes a model."""
