"""Mutants of what runs the forward pass; see `mutants`."""

from __future__ import annotations

from correctness_tests.mutations import mutant

RUNTIMES = "test_runtimes.py"
TENSORRT = "test_tensorrt.py"

RUNTIME_MUTANTS = (
    mutant(
        "a runtime that left is refused with a bare list of choices",
        "execution.py",
        '        refuse_what_is_gone("runtime", self.runtime)\n',
        "",
        f"{RUNTIMES}::test_a_runtime_that_left_is_refused_with_what_to_use_instead",
    ),
    mutant(
        "a model that cannot be compiled runs in PyTorch though TensorRT was asked for",
        "layouts/choice.py",
        'if execution.runtime == "tensorrt" and changes',
        "if False and changes",
        f"{RUNTIMES}::test_a_classifier_that_looks_up_eos_as_it_runs_is_refused",
    ),
    mutant(
        "an engine's weights are not watched",
        "compiled.py",
        'execution.freeze or execution.runtime == "tensorrt"',
        "execution.freeze",
        f"{TENSORRT}::test_a_changed_weight_builds_anew_since_an_engine_holds_weights",
    ),
    mutant(
        "what cannot be built runs in PyTorch",
        "runtimes/tensorrt.py",
        '"pass_through_build_failures": True',
        '"pass_through_build_failures": False',
        f"{TENSORRT}::test_what_cannot_be_built_is_an_error_and_not_run_otherwise",
    ),
)
