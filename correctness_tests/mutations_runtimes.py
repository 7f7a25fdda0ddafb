"""Mutants of the other runtimes; see `mutants`."""

from __future__ import annotations

from correctness_tests.mutations import mutant

RUNTIMES = "test_runtimes.py"
EXPORT = "test_export.py"
TENSORRT = "test_tensorrt.py"

RUNTIME_MUTANTS = (
    mutant(
        "what is exported looks up <eos> as transformers does",
        "layouts/layout.py",
        "strict=execution.strict, function=function,",
        "strict=execution.strict,",
        f"{RUNTIMES}::test_rows_with_any_number_of_eos_share_a_batch",
    ),
    mutant(
        "OpenVINO's output not copied",
        "runtimes/openvino.py",
        "share_inputs=True)",
        "share_inputs=True, share_outputs=True)",
        f"{RUNTIMES}::test_batches_that_follow_do_not_write_over_the_scores",
    ),
    mutant(
        "a stale session is kept",
        "runtimes/forward.py",
        "self._version is not None and self._version != _version(self._model)",
        "False",
        f"{RUNTIMES}::test_a_changed_weight_is_exported_anew_and_said",
    ),
    mutant(
        "a write through data is not looked for",
        "runtimes/forward.py",
        "if self._failed is not None or self._outdated():",
        "if self._failed is not None:",
        f"{RUNTIMES}::test_a_weight_written_through_data_is_noticed_by_the_next_warm_up",
    ),
    mutant(
        "one session for any number of threads",
        "runtimes/forward.py",
        "threads = torch.get_num_threads()\n",
        "threads = 1\n",
        f"{RUNTIMES}::test_a_session_has_its_callers_threads_and_another_number_of_them_is_said",
    ),
    mutant(
        "what answers otherwise is served",
        "runtimes/probe.py",
        "if not error <= tolerated:",
        "if error > tolerated:",
        f"{RUNTIMES}::test_an_export_that_answers_otherwise_is_refused",
    ),
    mutant(
        "a failed export is tried again and again",
        "runtimes/forward.py",
        "            self._failed = str(error)\n",
        "",
        f"{RUNTIMES}::test_a_model_that_cannot_be_exported_is_refused_by_name_in_one_line",
    ),
    mutant(
        "checksums not compared",
        "runtimes/export.py",
        "None if sums == _sums(place) else",
        "None if sums else",
        f"{EXPORT}::test_what_is_damaged_is_exported_anew_with_a_warning",
    ),
    mutant(
        "another process's export is replaced",
        "runtimes/export.py",
        "if _fault(place) is None:",
        "if False:",
        f"{EXPORT}::test_a_process_that_was_quicker_is_not_disturbed",
    ),
    mutant(
        "weights are not in the fingerprint",
        "runtimes/export.py",
        "        digest.update(tensor.detach()",
        "        str(tensor.detach()",
        f"{EXPORT}::test_whatever_the_graph_depends_on_is_in_the_fingerprint",
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
