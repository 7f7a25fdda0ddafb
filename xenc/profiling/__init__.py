"""Where the time goes: by stage, by kernel, against the hardware's limit, and what to try next."""
