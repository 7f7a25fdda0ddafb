"""The small ways in which `mutants` breaks encoder-decoders, and the laws that should notice each."""

from __future__ import annotations

from correctness_tests.mutations import mutant

ONE_BY_ONE = "test_t5.py::test_a_t5_scores_as_plain_transformers_does_one_by_one"
SEVERAL = "test_t5.py::test_several_scores_are_those_of_one_at_a_time"
CUT = "test_t5.py::test_a_long_document_is_cut_and_the_question_behind_it_stays"
EOS = "test_eos.py::test_rows_with_any_number_of_eos_share_a_batch"
FIRST_STEP = "encoder_decoder/first_step.py"
DECODER = "encoder_decoder/forward.py"

ENCODER_DECODER_MUTANTS = (
    mutant("projection never scaled", DECODER, "said * asked.scale", "said", ONE_BY_ONE),
    mutant("padding attended across", DECODER, "encoder_attention_mask=attention_mask,", "", ONE_BY_ONE),
    mutant(
        "encoder attends to padding", DECODER, "attention_mask=attention_mask).last", ").last", ONE_BY_ONE
    ),
    mutant(
        "state before the prefix", DECODER, "last_hidden_state[:, -1]", "last_hidden_state[:, 0]", SEVERAL
    ),
    mutant(
        "first pair of targets only",
        DECODER,
        "logits[:, 1::2]",
        "logits[:, 1:2]",
        SEVERAL,
    ),
    mutant("another start token", FIRST_STEP, "(start_id, *", "(start_id + 3, *", ONE_BY_ONE),
    mutant("cut at the front", FIRST_STEP, "if left else own[::-1]", "if left else own", CUT),
    mutant(
        "prompt cut like any text",
        FIRST_STEP,
        "(prompt.document, prompt.query)",
        "(prompt.query,)",
        CUT,
    ),
    mutant(
        "random weights accepted",
        "encoder_decoder/scorer.py",
        "    if missing:",
        "    if False:",
        "test_t5.py::test_a_checkpoint_without_some_weight_is_refused_by_name",
    ),
    mutant(
        "a T5 left to chance",
        "executed.py",
        "if not generates(config):",
        "if True:",
        "test_t5.py::test_no_head_is_ever_drawn_at_random",
    ),
    mutant("first <eos>", DECODER, ", 0).amax(dim=1)", ", 10**6).amin(dim=1)", EOS),
    mutant("decoder reads unshifted", DECODER, "model._shift_right(input_ids)}", "input_ids}", EOS),
    mutant(
        "a pair without <eos> read elsewhere",
        "collate.py",
        "if required not in ids:",
        "if False:",
        "test_eos.py::test_a_pair_without_eos_is_refused_and_not_read_elsewhere",
    ),
)
