"""Mutants of what a profile says."""

# fmt: off
ROWS = (
    "test_findings.py",
    ("a fused kernel taken for the product it is named after", "class_of",
     "if INDUCTOR.match(name) and not _TEMPLATE.match(name):", "if False:"),
    "test_profiling.py::test_kernels_that_overlap_count_once",
    ("kernels that overlap count twice", "_covered",
     "stop - max(end, launch.start_ns)", "stop - launch.start_ns"),
    "test_profiling.py::test_what_compiles_while_it_is_measured_is_an_error",
    ("compiling passes for scoring", "profile_model", "_check_nothing_compiled(watch.report)", "pass"),
    "test_profiling.py::test_a_graph_break_shows_as_another_region_with_its_reason "
    "test_findings.py",
    ("graph breaks go unseen", "Traced.regions",
     "return self.region_calls / self.batches", "return min(1, self.region_calls / self.batches)"),
    "test_profiling.py::test_the_operators_of_the_trace_lie_within_its_forward_spans",
    ("stages beside the operators that they ran", "add_spans",
     "(span.start_ns - base_ns) / 1000", "(span.end_ns - base_ns) / 1000"),
)
