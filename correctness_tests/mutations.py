"""The small ways in which `mutants` breaks xenc, and the laws that should notice each."""

from __future__ import annotations

from dataclasses import dataclass

PLAN = "test_plan.py"
SCORES = "test_scores.py::test_scores_do_not_depend_on_the_batch_size"
MANY_BATCHES = "test_scores.py::test_a_request_that_fills_many_packed_batches_scores_as_the_oracle"
FINDINGS = "test_profiling_findings.py"
LAYOUTS = "test_families.py::test_every_architecture_scores_as_the_oracle"


@dataclass(frozen=True)
class Mutant:
    """`edits` of one file of xenc (text, and what it becomes), and the tests that should notice."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


def mutant(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, file, ((old, new),), tests)


ALL_ATTENDED = ("attended.long()", "attended.long().fill_(1)")
OTHER_PAD = ("row_ids, fill=self.pad_id", "row_ids, fill=self.pad_id + 1")

MUTANTS = (
    Mutant("another pad id", "collate.py", (OTHER_PAD,), ("test_collate.py",)),
    Mutant("another pad id, attended", "collate.py", (OTHER_PAD, ALL_ATTENDED), (SCORES,)),
    Mutant("padding attended", "collate.py", (ALL_ATTENDED,), (SCORES,)),
    mutant(
        "the default model loads in half precision",
        "default_model/config.json",
        '"dtype": "float32"',
        '"dtype": "float16"',
        "test_default_model.py::test_half_precision_on_disk_is_single_precision_in_memory",
    ),
    mutant("mask one short", "collate.py", "counts.clamp(min=1)", "(counts - 1).clamp(min=1)", SCORES),
    mutant("mask one long", "collate.py", "counts.clamp(min=1)", "counts + 1", SCORES),
    mutant("dummy rows attend to nothing", "collate.py", "counts.clamp(min=1)", "counts", "test_collate.py"),
    mutant("token types dropped", "collate.py", "if tokens.token_type_ids is not None", "if False", SCORES),
    mutant(
        "bucket one too long",
        "plan.py",
        "bisect_left(buckets, longest)",
        "bisect_left(buckets, longest + 1)",
        PLAN,
    ),
    mutant(
        "bucket one too short",
        "plan.py",
        "bisect_left(buckets, longest)",
        "bisect_left(buckets, longest - 1)",
        PLAN,
    ),
    mutant("shortest first", "plan.py", "-counts[row]", "counts[row]", PLAN),
    mutant("unstable order", "plan.py", "-counts[row]", "(-counts[row], -row)", PLAN),
    mutant(
        "batch dimension varies",
        "plan.py",
        "size = batch_size if fill else len(rows)",
        "size = len(rows)",
        PLAN,
    ),
    mutant(
        "warm-up skips the longest bucket",
        "plan.py",
        "sorted(buckets, reverse=True))",
        "sorted(buckets)[:-1])",
        PLAN,
    ),
    mutant(
        "warm-up skips the shortest bucket",
        "plan.py",
        "sorted(buckets, reverse=True))",
        "sorted(buckets, reverse=True)[:-1])",
        PLAN,
    ),
    mutant(
        "warm-up starts with equal sizes", "plan.py", "shape[0] == shape[1]", "shape[0] != shape[1]", PLAN
    ),
    mutant("order not restored", "request.py", "where[list(rows)] =", "where[sorted(rows)] =", SCORES),
    mutant(
        "slots of another batch", "request.py", "offset += len(part)", "offset += len(rows)", MANY_BATCHES
    ),
    mutant(
        "NaN not checked",
        "request.py",
        "                _check_finite(logits)\n",
        "",
        "test_errors.py::test_nan_logits_name_the_pairs_and_no_others",
    ),
    mutant(
        "truncation not counted",
        "tokens.py",
        "truncated_pairs=len(long)",
        "truncated_pairs=0",
        "test_tokens.py::test_truncated_pairs_are_those_longer_than_max_length",
    ),
    mutant(
        "full counted as truncated",
        "tokens.py",
        "if len(ids) > max_length]",
        "if len(ids) >= max_length]",
        "test_tokens.py::test_a_pair_of_exactly_max_length_is_not_truncated",
    ),
    mutant(
        "the shorter text cut first",
        "tokens.py",
        "if first > second else",
        "if first < second else",
        "test_tokens.py::test_ids_and_types_are_those_of_each_pair_alone",
    ),
    mutant(
        "the odd token to the other text",
        "tokens.py",
        "room // 2, room - room // 2",
        "room - room // 2, room // 2",
        "test_tokens.py::test_ids_and_types_are_those_of_each_pair_alone",
    ),
    mutant(
        "a tokenizer's own way to encode overlooked",
        "text_ids.py",
        '("__call__", "_encode_plus", ',
        '("__call__", ',
        "test_text_ids.py::test_a_method_that_is_replaced_later_is_called",
    ),
    mutant(
        "another user's padding kept",
        "text_ids.py",
        "        tokenizer.set_truncation_and_padding(",
        "        dict(",
        "test_text_ids.py::test_what_another_user_of_the_tokenizer_set_changes_neither_ids_nor_what_is_left",
    ),
    mutant(
        "special tokens split as another user wanted",
        "text_ids.py",
        "if backend.encode_special_tokens != tokenizer.split_special_tokens:",
        "if False:",
        "test_text_ids.py::test_what_another_user_of_the_tokenizer_set_changes_neither_ids_nor_what_is_left",
    ),
    mutant(
        "positions from 0 for all",
        "families.py",
        "int(config.pad_token_id)) + 1",
        "int(config.pad_token_id)) * 0",
        "test_families.py::test_traits_follow_the_config",
    ),
    mutant(
        "watch blind to the fall to eager",
        "watch.py",
        "if fullest >= limit or (fullest and _overflows.include(code)):",
        "if False:",
        "test_fall_to_eager.py::test_a_fall_that_came_before_the_watch_is_seen_though_no_counter_moves",
    ),
    mutant(
        "watch blind to recompiles",
        "watch.py",
        "recompiles=self._recompiles(metrics)",
        "recompiles=()",
        "test_watch.py::test_a_recompile_is_told_with_its_reason",
    ),
    mutant(
        "watch blind to CUDA graphs",
        "watch.py",
        '"CUDAGRAPH_RECORDING"',
        '"OTHER"',
        "test_watch.py::test_a_cuda_graph_recording_is_counted",
    ),
    mutant(
        "late compile not reported",
        "compiled.py",
        "self.graphs > graphs_before",
        "False",
        "test_compiled.py::test_strict_mode_raises_with_the_guards_reason_and_works_on",
    ),
    mutant(
        "wrappers share graphs",
        "compiled.py",
        "function.__code__.replace(co_name=name)",
        "function.__code__",
        "test_compiled.py::test_two_wrappers_of_one_model_compile_graphs_of_their_own",
    ),
    mutant(
        "prompt dropped",
        "cross_encoder.py",
        "prompt + query",
        "query",
        "test_drop_in.py::test_every_call_answers_as_sentence_transformers[prompt]",
    ),
    mutant(
        "dropout at inference",
        "cross_encoder.py",
        "                self.eval()\n                pipeline",
        "                pipeline",
        "test_life_of_a_model.py::test_training_mode_does_not_leak_into_scores",
    ),
    mutant(
        "a fused kernel taken for the product it is named after",
        "profiling/kernel_names.py",
        "if INDUCTOR.match(name) and not _TEMPLATE.match(name):",
        "if False:",
        FINDINGS,
    ),
    mutant(
        "kernels that overlap count twice",
        "profiling/kernels.py",
        "start + duration - max(end, start)",
        "duration",
        "test_profiling.py::test_kernels_that_overlap_count_once",
    ),
    mutant(
        "compiling passes for scoring",
        "profiling/measure.py",
        "    _check_nothing_compiled(watch.report)\n",
        "",
        "test_profiling.py::test_what_compiles_while_it_is_measured_is_an_error",
    ),
    mutant(
        "graph breaks go unseen",
        "profiling/profile.py",
        "return self.traced.region_calls / self.report.batches",
        "return min(1, self.traced.region_calls / self.report.batches)",
        "test_profiling.py::test_a_graph_break_shows_as_another_region_with_its_reason",
        FINDINGS,
    ),
    mutant(
        "stages beside the operators that they ran",
        "profiling/stages.py",
        "(span.start_ns - base_ns) / 1000",
        "(span.end_ns - base_ns) / 1000",
        "test_profiling.py::test_the_trace_has_every_operator_within_its_forward_pass_and_every_stage",
    ),
)
