"""Mutants of how texts become token ids."""

# fmt: off
ROWS = (
    "test_tokens.py::test_ids_and_types_are_those_of_each_pair_alone_and_longer_pairs_count_as_truncated",
    ("truncation not counted", "tokenize", "truncated_pairs=len(long)", "truncated_pairs=0"),
    "test_tokens.py::test_a_pair_of_exactly_max_length_is_not_truncated",
    ("full counted as truncated", "tokenize", "if len(ids) > max_length]", "if len(ids) >= max_length]"),
    "test_tokens.py::test_ids_and_types_are_those_of_each_pair_alone_and_longer_pairs_count_as_truncated",
    ("the shorter text cut first", "tokens:_cut",
     "if len(first) > len(second) else", "if len(first) < len(second) else"),
    ("the odd token to the other text", "tokens:_cut",
     "room // 2, room - room // 2", "room - room // 2, room // 2"),
    "test_text_ids.py::test_a_method_that_is_replaced_later_is_called",
    ("a tokenizer's own way to encode overlooked", "_ENCODING",
     '("__call__", "_encode_plus", ', '("__call__", '),
    "test_text_ids.py::test_what_another_user_of_the_tokenizer_set_changes_neither_ids_nor_what_is_left",
    ("another user's padding kept", "TextIds._by_backend", "tokenizer.set_truncation_and_padding(", "dict("),
    ("special tokens split as another user wanted", "TextIds._by_backend",
     "if backend.encode_special_tokens != tokenizer.split_special_tokens:", "if False:"),
)
