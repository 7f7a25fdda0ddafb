"""The small ways in which `mutants` breaks shared prefixes, and the laws that should notice each."""

from __future__ import annotations

from correctness_tests.mutations import mutant

_LAWS = "test_shared_prefix.py::"
SCORES = f"{_LAWS}test_sharing_changes_no_score"
COST = f"{_LAWS}test_a_prefix_is_read_once_and_costs_what_arithmetic_says"
ATTENTION = "test_prefix_attention.py"

PREFIX_MUTANTS = (
    mutant(
        "positions do not go on after the prefix",
        "prefix/collate.py",
        "first_position=self.packed.first_position + count",
        "first_position=self.packed.first_position",
        SCORES,
    ),
    mutant(
        "all of the cache attended",
        "prefix/attention.py",
        "count = int(prefix_starts[1])",
        "count = len(prefix_key)",
        ATTENTION,
    ),
    mutant(
        "all of the cache is the prefix",
        "prefix/cache.py",
        "packed.starts[:2].clone()",
        "packed.starts[[0, -1]]",
        SCORES,
    ),
    mutant(
        "weights of prefix and document exchanged",
        "prefix/attention.py",
        "before_log_sums.float() - own_log_sums.float()",
        "own_log_sums.float() - before_log_sums.float()",
        ATTENTION,
    ),
    mutant(
        "a document sees its own end",
        "prefix/attention.py",
        "share, scale, causal=True",
        "share, scale, causal=False",
        ATTENTION,
    ),
    mutant(
        "the prefix before stays",
        "prefix/cache.py",
        "if batch.prefix is not self._held:",
        "if self._held is None:",
        f"{_LAWS}test_requests_with_other_prefixes_and_with_none_in_turns_keep_their_own",
    ),
    mutant(
        "an equal prefix is taken for the same",
        "prefix/cache.py",
        "if batch.prefix is not self._held:",
        "if self._held is None or batch.prefix.ids != self._held.ids:",
        f"{_LAWS}test_a_prefix_is_read_anew_where_a_weight_has_changed",
    ),
    mutant(
        "no prefix is the one before",
        "prefix/cache.py",
        "cache=self._cache, prefix_starts=self._nothing",
        "cache=self._cache, prefix_starts=self._nothing if self._held is None else self._starts",
        f"{_LAWS}test_requests_with_other_prefixes_and_with_none_in_turns_keep_their_own",
    ),
    mutant(
        "read with every batch",
        "prefix/cache.py",
        "            self._held = batch.prefix\n",
        "",
        COST,
    ),
    mutant(
        "reading costs nothing",
        "prefix/common.py",
        "return self.tokens + self.prefix_tokens",
        "return self.tokens",
        COST,
    ),
    mutant(
        "padding kept as what the head reads",
        "prefix/common.py",
        "if ids[at] != unread_id",
        "if True",
        f"{_LAWS}test_each_row_keeps_a_token_that_the_head_can_read",
    ),
    mutant(
        "every layer continues the first",
        "prefix/attention.py",
        '["prefix_cache"][module.layer_idx]',
        '["prefix_cache"][0]',
        SCORES,
    ),
)
