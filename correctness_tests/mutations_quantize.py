"""The small ways in which `mutants` breaks quantised executions, and the laws that should notice each."""

from __future__ import annotations

from correctness_tests.mutations import mutant

_FILE, _TWIN = "quantize.py", "twin.py"
_TESTS = "test_quantize.py::"
OWN = f"{_TESTS}test_only_the_encoders_matrices_are_the_twins_own"
UNTOUCHED = f"{_TESTS}test_the_model_itself_is_not_touched"
NOTICED = f"{_TESTS}test_a_changed_weight_is_noticed"

QUANTIZE_MUTANTS = (
    mutant(
        "the head in eight bits",
        _FILE,
        "model.base_model.modules() if",
        "[ModuleList(model.modules())] if",
        OWN,
    ),
    mutant(
        "the model quantised itself",
        _TWIN,
        "_copied(original, shared | shareable(original))",
        "original",
        UNTOUCHED,
    ),
    mutant(
        "never follows",
        _TWIN,
        "version == self._version and not self._contents.changed()",
        "True",
        NOTICED,
    ),
    mutant(
        "the head left behind",
        _TWIN,
        "twins[name]._parameters.update(module._parameters)",
        "pass",
        NOTICED,
    ),
    mutant(
        "writes through data unseen",
        "pipeline.py",
        "self._twin.follow(anyway=True)",
        "self._twin.follow()",
        f"{_TESTS}test_without_the_library_a_weight_written_through_data_is_noticed_by_the_next_warm_up",
    ),
    mutant(
        "the process's settings changed",
        _FILE,
        "version=2, set_inductor_config=False",
        "version=2",
        f"{_TESTS}test_no_setting_of_the_process_is_left_changed",
    ),
    mutant(
        "one graph for every precision",
        "execution.py",
        "self.dynamic, self.quantize, ",
        "self.dynamic, ",
        f"{_TESTS}test_executions_of_different_precision_do_not_share_graphs",
    ),
    mutant(
        "overflow unseen",
        _FILE,
        "not _products_are_exact()",
        "False",
        f"{_TESTS}test_a_processor_whose_int8_sums_overflow_is_refused",
    ),
)
