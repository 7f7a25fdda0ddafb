"""The compile wrapper, the warm-up, the watch that sees what compiled, what is kept between processes."""
