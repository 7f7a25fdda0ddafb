"""Profile a model: time by stage and by kernel, the share of the hardware's limit, and what to try next."""
