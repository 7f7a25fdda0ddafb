"""Mutants of profiles."""

# fmt: off
ROWS = (
    "test_findings.py",
    ("a fused kernel taken for the product it is named after", "class_of",
     "if INDUCTOR.match(name) and not _TEMPLATE.match(name):", "if False:"),
    ("an eager forward pass for a compiled one", "_compilation", "profile.regions == 0", "False"),
    "test_profiling.py::test_kernels_that_overlap_count_once",
    ("kernels that overlap count twice", "_covered_ns",
     "start + duration - max(end, start)", "duration"),
    "test_profiling.py::test_what_compiles_while_it_is_measured_is_an_error",
    ("compiling passes for scoring", "profile_model", "_check_nothing_compiled(watch.report)", "pass"),
    "test_profiling.py::test_the_trace_has_every_operator_within_its_forward_pass_and_every_stage",
    ("stages beside the operators that they ran", "add_to_trace",
     "(span.start_ns - base_ns) / 1000", "(span.end_ns - base_ns) / 1000"),
)
