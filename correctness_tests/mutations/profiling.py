"""Mutants of what a profile says."""

# fmt: off
ROWS = (
    "test_findings.py",
    ("a fused kernel taken for the product it is named after", "class_of",
     "if INDUCTOR.match(name) and not _TEMPLATE.match(name):", "if False:"),
    "test_profiling.py::test_kernels_that_overlap_count_once",
    ("kernels that overlap count twice", "_covered_ns",
     "start + duration - max(end, start)", "duration"),
    "test_profiling.py::test_what_compiles_while_it_is_measured_is_an_error",
    ("compiling passes for scoring", "profile_model", "_check_nothing_compiled(watch.report)", "pass"),
    "test_profiling.py::test_a_graph_break_shows_as_another_region_with_its_reason "
    "test_findings.py",
    ("graph breaks go unseen", "Profile.regions",
     "return self.traced.region_calls / self.report.batches",
     "return min(1, self.traced.region_calls / self.report.batches)"),
    "test_profiling.py::test_the_trace_has_every_operator_within_its_forward_pass_and_every_stage",
    ("stages beside the operators that they ran", "add_to_trace",
     "(span.start_ns - base_ns) / 1000", "(span.end_ns - base_ns) / 1000"),
)
