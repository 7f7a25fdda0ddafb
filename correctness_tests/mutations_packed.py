"""The small ways in which `mutants` breaks packed batches, and the laws that should notice each."""

from __future__ import annotations

from correctness_tests.mutations import LAYOUTS, mutant

PACKING = "test_packing.py"
STREAM = "test_stream.py"
SLOTS = "test_slots.py"
PACKED_COLLATE = "test_packed_collate.py"
ATTENTION = "test_attention.py"
ADMISSION = "test_admission.py"
LAST_LAYER = "test_last_layer.py"

PACKED_MUTANTS = (
    mutant(
        "first pair not mandatory",
        "packing.py",
        "[0, *(1 + index for index in _fullest(counts[1:], target - counts[0], limit - 1))]",
        "_fullest(counts, target, limit)",
        PACKING,
    ),
    mutant("slots one short", "packing.py", "if each >= documents)", "if each >= documents - 1)", PACKING),
    mutant(
        "always the most slots",
        "packing.py",
        "for each in self.slots(size) if",
        "for each in self.slots(size)[-1:] if",
        PACKING,
    ),
    mutant(
        "no slots for dummies",
        "packing.py",
        "return self.slots(size)[-1] - self._dummies(size)",
        "return self.slots(size)[-1]",
        PACKING,
    ),
    mutant(
        "slots for pairs alone",
        "packing.py",
        "len(rows) + self._dummies(size - tokens)",
        "len(rows)",
        PACKING,
    ),
    mutant(
        "packed warm-up with the most slots alone",
        "packing.py",
        "reversed(budgets.slots(size))",
        "budgets.slots(size)[-1:]",
        PACKING,
    ),
    mutant(
        "several shapes where each is a graph",
        "layouts/packed.py",
        "execution.compile_mode is None or execution.dynamic is True",
        "True",
        SLOTS,
    ),
    mutant(
        "several shapes where there is to be one",
        "layouts/packed.py",
        "one_graph and not execution.deterministic",
        "one_graph",
        SLOTS,
    ),
    mutant(
        "a batch one token too full", "packing.py", "(1 << (room + 1)) - 1", "(1 << (room + 2)) - 1", PACKING
    ),
    mutant(
        "the first pairs are in whether they fill it or not",
        "packing.py",
        "if first and sum(",
        "if False and sum(",
        PACKING,
    ),
    mutant("a batch never quite full", "packing.py", "(1 << (room + 1)) - 1", "(1 << room) - 1", PACKING),
    mutant(
        "always the usual budget",
        "packing.py",
        "if budgets.at_least(tokens) <= size",
        "if target <= size",
        PACKING,
    ),
    mutant(
        "packed warm-up skips the smallest",
        "packing.py",
        "reversed(budgets.sizes)\n",
        "reversed(budgets.sizes[1:])\n",
        PACKING,
    ),
    mutant(
        "a batch is chosen from too little",
        "packing.py",
        "LOOK_AHEAD: Final = 12",
        "LOOK_AHEAD: Final = 2",
        f"{PACKING}::test_little_is_wasted_on_prose",
    ),
    mutant(
        "a batch waits for more than it gains by",
        "packing.py",
        "min(LOOK_AHEAD * self.max_tokens, MOST_LOOK_AHEAD * self.usual)",
        "MOST_LOOK_AHEAD * self.usual",
        f"{STREAM}::test_on_a_gpu_the_first_texts_that_are_read_make_a_batch",
    ),
    mutant(
        "a batch does not wait",
        "stream.py",
        "if oldest is None or (oldest.unread and self._tokens < self._budgets.enough):",
        "if oldest is None:",
        STREAM,
    ),
    mutant(
        "dropped pairs weigh on",
        "stream.py",
        "                self._tokens -= count\n",
        "                pass\n",
        STREAM,
    ),
    mutant(
        "resting requests forgotten",
        "stream.py",
        "self._paused = self._paused, []",
        "self._paused = self._paused[:1], []",
        STREAM,
    ),
    mutant(
        "rows counted from each chunk",
        "stream.py",
        "first=len(request.pairs) - request.unread)",
        "first=0)",
        STREAM,
    ),
    mutant(
        "never rests",
        "stream.py",
        "full = self._tokens > MOST_WAITING * self._budgets.usual",
        "full = False",
        STREAM,
    ),
    mutant(
        "starts not repeated",
        "packed_collate.py",
        "np.full(batch.slots + 1, batch.tokens, dtype=np.int64)",
        "np.zeros(batch.slots + 1, dtype=np.int64)",
        PACKED_COLLATE,
    ),
    mutant(
        "positions do not restart",
        "packed_collate.py",
        "np.arange(len(ids)) - np.repeat(starts[:-1], counts) + self.first_position",
        "np.arange(len(ids)) + self.first_position",
        PACKED_COLLATE,
    ),
    mutant(
        "padding numbered", "packed_collate.py", "= nth * numbered + self", "= nth + self", PACKED_COLLATE
    ),
    mutant(
        "last pools padding",
        "packed_collate.py",
        "if self.unread_id is None else ids",
        "if True else ids",
        PACKED_COLLATE,
    ),
    mutant(
        "a pair of no tokens shows nothing",
        "packed_collate.py",
        "tokens.input_ids[row] or [self.pad_id]",
        "tokens.input_ids[row]",
        PACKED_COLLATE,
    ),
    mutant("window off by one", "attention.py", "(ahead >= -window)", "(ahead > -window)", ATTENTION),
    mutant(
        "causal dropped", "attention.py", "is_causal=causal and mask is None", "is_causal=False", ATTENTION
    ),
    mutant(
        "neighbours of one length seen",
        "attention.py",
        "(start, count, tokens))",
        "(start, 1, count * tokens))",
        ATTENTION,
    ),
    mutant(
        "padding attended in padded batches",
        "attention.py",
        "value, attention_mask, **kwargs",
        "value, None, **kwargs",
        ATTENTION,
    ),
    mutant(
        "the last layer computed for all tokens",
        "last_layer.py",
        "    asking = hidden[:, pooled]",
        "    return last(hidden, **attending)[0, pooled]\n    asking = hidden[:, pooled]",
        LAST_LAYER,
    ),
    mutant(
        "the residual of other tokens",
        "last_layer.py",
        "last.attention.output(attended, asking)",
        "last.attention.output(attended, hidden[:, : len(pooled)])",
        LAST_LAYER,
    ),
    mutant(
        "hooks passed over",
        "foreign_code.py",
        "if any(True for _ in foreign_hooks(module)):",
        "if False:",
        LAST_LAYER,
    ),
    mutant(
        "other libraries' modules given the pooled tokens alone",
        "foreign_code.py",
        "if not (_is_known(kind.forward) and _is_known(kind.__call__)):",
        "if False:",
        LAST_LAYER,
    ),
    mutant(
        "hooks of transformers taken for the user's",
        "foreign_code.py",
        "if not _is_known(hook)",
        "",
        LAST_LAYER,
    ),
    mutant(
        "embeddings of another width not projected",
        "last_layer.py",
        'if hasattr(body, "embeddings_project"):',
        "if False:",
        "test_families.py",
    ),
    mutant("transformers' window taken whole", "attention.py", "else reach - 1", "else reach", LAYOUTS),
    mutant(
        "causal families bidirectional",
        "attention.py",
        'bool(getattr(module, "is_causal", False))',
        "False",
        LAYOUTS,
    ),
    mutant("mean takes the first", "families.py", 'return Packable("mean", traits.head)', "pass", LAYOUTS),
    mutant(
        "query and key exchanged",
        "checkpoints.py",
        ".chunk(3)[third]",
        ".chunk(3)[(1, 0, 2)[third]]",
        "test_checkpoints.py::test_a_restored_model_scores_as_its_own_network",
    ),
    mutant(
        "one pair too many accepted",
        "admission.py",
        "pairs > limit:\n                raise",
        "pairs > limit + 1:\n                raise",
        f"{ADMISSION}::test_pairs_are_accepted_exactly_when_they_fit_and_count_until_they_leave",
    ),
    mutant(
        "a ticket leaves twice",
        "admission.py",
        "if ticket in self._tickets:\n                self._tickets.remove(ticket)\n                self",
        "if True:\n                self",
        f"{ADMISSION}::test_pairs_are_accepted_exactly_when_they_fit_and_count_until_they_leave",
    ),
    mutant(
        "pairs count when the answer is seen",
        "request.py",
        "        self._leave()\n        with suppress(InvalidStateError):  # cancelled",
        "        with suppress(InvalidStateError):  # cancelled",
        f"{ADMISSION}::test_whoever_sees_an_answer_finds_its_pairs_gone",
    ),
    mutant(
        "cancelled pairs count for ever",
        "request.py",
        "lambda _: leave()",
        "lambda _: None",
        f"{ADMISSION}::test_cancelling_makes_room_before_cancel_returns",
    ),
    mutant(
        "refused input counts for ever",
        "admission.py",
        "            ticket.leave()\n            raise",
        "            raise",
        f"{ADMISSION}::test_bad_input_leaves_nothing_behind",
    ),
    mutant(
        "a stage's error kept to itself",
        "pipeline.py",
        "self._worker.fail_promised(error)",
        "del error",
        "test_nothing_is_lost.py::test_whichever_stage_breaks_all_that_waits_is_told",
    ),
    mutant(
        "a forked child counts on",
        "admission.py",
        "        admission._begin()",
        "        admission._lock = threading.Lock()",
        f"{ADMISSION}::test_a_forked_child_counts_from_zero",
    ),
)
