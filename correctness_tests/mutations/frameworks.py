"""Mutants of what frameworks build."""

# fmt: off
ROWS = (
    "test_replacing.py::test_however_a_framework_imports_the_class_it_builds_xencs_which_scores_after_the_block",
    ("the constructor stays replaced", "frameworks:_leave",
     "if sentence_transformers.CrossEncoder.__init__ is ours:", "if False:"),
    ("a model is not listed", "_standing_in_for", "block.models.append(self)", "pass"),
    "test_replacing.py::test_a_class_imported_in_the_block_is_the_original_and_looks_like_it",
    ("the constructor has another signature", "_standing_in_for",
     "@wraps(original)", "@wraps(print)"),
    "test_replacing.py::test_the_options_arrive_and_what_the_framework_passes_wins",
    ("an option is dropped", "replace_cross_encoders",
     '"long_documents": long_documents', '"long_documents": "cut"'),
    ("the block's options win", "_standing_in_for",
     "{**blocks[-1].options, **kwargs}", "{**kwargs, **blocks[-1].options}"),
    "test_replacing.py::test_subclasses_and_xencs_own_and_models_built_before_stay_what_they_are",
    ("subclasses become xenc's", "_standing_in_for",
     "type(self) is not sentence_transformers.CrossEncoder", "isinstance(self, CrossEncoder)"),
    "test_replacing.py::test_an_error_in_the_block_undoes_it",
    ("a block never ends", "replace_cross_encoders", "_leave(block)", "pass"),
    ("an error leaves the block open", "replace_cross_encoders",
     "    finally:\n", "    except ImportError:\n        raise\n    else:\n"),
    "test_replacing.py::test_a_model_that_cannot_be_loaded_raises_xencs_error_and_is_none_of_those_built",
    ("a model counts before it is loaded", "_standing_in_for",
     """        CrossEncoder.__init__(self, *args, **{**blocks[-1].options, **kwargs})
        for block in blocks:
            block.models.append(self)
""",
     """        for block in blocks:
            block.models.append(self)
        CrossEncoder.__init__(self, *args, **{**blocks[-1].options, **kwargs})
"""),
    "test_replacing.py::test_of_nested_blocks_the_innermost_gives_the_options_and_both_list_the_model",
    ("the outermost block gives the options", "_standing_in_for", "blocks[-1].options", "blocks[0].options"),
    ("the outer block does not list", "_standing_in_for",
     "for block in blocks:", "for block in blocks[-1:]:"),
    "test_replacing.py::test_other_threads_go_on_building_sentence_transformers_own",
    ("a block holds for all threads", "_standing_in_for",
     "[block for block in _entered.get() if block in _open]", "[*_open]"),
    "test_replacing.py::test_blocks_of_two_threads_may_end_in_any_order",
    ("the first block that ends undoes all", "frameworks:_leave", "if not _open:", "if _replaced:"),
    "test_replacing.py::test_a_task_that_outlives_its_block_builds_what_is_built_outside",
    ("a block outlives its end in a task", "_standing_in_for", "if block in _open]", "]"),
    "test_replacing.py::test_a_block_in_which_nothing_was_built_says_so",
    ("that nothing was built is not said", "replace_cross_encoders", "if not block.models:", "if False:"),
    "test_replacing.py::test_what_somebody_put_in_the_constructors_place_meanwhile_stays",
    ("somebody's constructor is undone", "frameworks:_leave",
     "if sentence_transformers.CrossEncoder.__init__ is ours:", "if True:"),
)
