"""The small ways in which `mutants` breaks the C++ kernels and what stands around them, and who notices.

The library is built anew for each change of its sources, because its name is made of them.
"""

from __future__ import annotations

from correctness_tests.mutations import mutant

_ATTENTION, _LINEAR, _VECTOR = (f"kernels/cpp/{name}" for name in ("attention.cpp", "linear.cpp", "vector.h"))
_LAYERS, _REPLACE, _LIBRARY = "kernels/layers.py", "kernels/replace.py", "kernels/library.py"
OF_ATTENTION = "kernels/test_attention.py"
EDGES = f"{OF_ATTENTION}::test_documents_at_the_edges_of_a_block_are_right"
LONG = f"{OF_ATTENTION}::test_documents_of_more_than_one_block_of_keys_are_right"
SIZES = f"{OF_ATTENTION}::test_heads_of_every_size_and_layout_are_right"
RISING = f"{OF_ATTENTION}::test_scores_whose_largest_stands_in_any_block_are_right"
OF_LINEAR = "kernels/test_linear.py"
OUTPUTS = f"{OF_LINEAR}::test_every_number_of_outputs_is_right"
ROWS = f"{OF_LINEAR}::test_every_number_of_rows_is_right"
ACTIVATION = f"{OF_LINEAR}::test_an_activation_is_right_far_from_zero_and_near_it"
OF_EIGHT_BITS = "kernels/test_eight_bits.py"
INTEGERS = f"{OF_EIGHT_BITS}::test_every_number_of_outputs_is_what_integers_say"
NOT_FINITE = f"{OF_EIGHT_BITS}::test_a_row_that_is_not_finite_anywhere_stays_so_and_spoils_no_other"
OF_REPLACE = "kernels/test_replace.py"
ORACLE = "kernels/test_twin.py::test_scores_are_the_oracles"
FOLLOWED = "kernels/test_followed.py"
CHANGED = f"{FOLLOWED}::test_changed_weights_show_in_the_next_score_and_compile_nothing"
OF_LIBRARY = "kernels/test_library.py"

OF_FOREIGN_CODE = "kernels/test_foreign_code.py"
POOLED = "kernels/test_pooled_attention.py"

KERNEL_MUTANTS = (
    mutant("patched classes trusted", "foreign_code.py", "_is_known(kind.forward) and ", "", OF_FOREIGN_CODE),
    mutant(
        "code known by the name it bears",
        "foreign_code.py",
        'getattr(function, "__globals__", {}).get("__name__", "")',
        'getattr(function, "__module__", "")',
        OF_FOREIGN_CODE,
    ),
    mutant(
        "kernels in a model with somebody's code",
        "kernels/twin.py",
        "return foreign_code(model) or library().missing",
        "return library().missing",
        OF_FOREIGN_CODE,
    ),
    mutant(
        "a twin with attributes of its own",
        "twin.py",
        "shared | shareable(original)",
        "shared",
        OF_FOREIGN_CODE,
    ),
    mutant(
        "attributes that are set anew unseen",
        "weights.py",
        "    return id(value)",
        "    return None",
        OF_FOREIGN_CODE,
    ),
    mutant(
        "weights of another kind held",
        "twin.py",
        " and self._kinds_held() == self._kinds",
        "",
        OF_FOREIGN_CODE,
    ),
    mutant(
        "small weights looked at now and then",
        "kernels/cpp/register.cpp",
        "lines < every ? share % lines : share",
        "share",
        f"{FOLLOWED}::test_small_weights_that_are_written_as_a_whole_show_at_once_however_many_looks_there_were",
    ),
    mutant(
        "a damaged library loaded",
        _LIBRARY,
        "return _digest_of(library).read_text() == _digest(library)",
        "return library.exists()",
        f"{OF_LIBRARY}::test_a_library_that_was_damaged_is_built_anew",
    ),
    mutant(
        "every document asked by the first one's query",
        _ATTENTION,
        "how.pooled ? document : start",
        "how.pooled ? 0 : start",
        POOLED,
    ),
    mutant(
        "documents answered with their neighbour's query",
        "pooled_attention.py",
        "(query[slot, None]",
        "(query[slot - 1, None]",
        POOLED,
    ),
    mutant(
        "keys of the asking tokens alone",
        "last_layer.py",
        "attention.key(hidden)",
        "attention.key(hidden.roll(1, dims=1))",
        "test_last_layer.py",
    ),
    mutant(
        "starts not looked at",
        "kernels/cpp/register.cpp",
        "std::is_sorted(at, at + documents + 1)",
        "true",
        "kernels/test_operators.py",
    ),
    mutant("a scale of another base", _ATTENTION, "1.44269504088896f;", "1.4f;", EDGES),
    mutant(
        "keys beyond the last seen",
        _ATTENTION,
        "std::fill(scores + end, scores + whole.to, kLeast);",
        "",
        EDGES,
    ),
    mutant(
        "the last document lost",
        _ATTENTION,
        "document < how.documents;",
        "document < how.documents - 1;",
        EDGES,
    ),
    mutant(
        "a kernel's window one too narrow",
        _ATTENTION,
        "std::min(length, to + how.window)",
        "std::min(length, to + how.window - 1)",
        EDGES,
    ),
    mutant(
        "a kernel's window one too wide",
        _ATTENTION,
        "std::max<int64_t>(0, from - how.window)",
        "std::max<int64_t>(0, from - how.window - 1)",
        EDGES,
    ),
    mutant(
        "the next token seen",
        _ATTENTION,
        "how.causal ? to :",
        "how.causal ? std::min(length, to + 1) :",
        EDGES,
    ),
    mutant(
        "earlier blocks of keys not shrunk",
        _ATTENTION,
        "before == maximum ? 1.0f : std::exp2(before - maximum)",
        "1.0f",
        RISING,
    ),
    mutant("a block's sums replaced", _ATTENTION, "totals_[slot] * shrunk + sum", "sum", LONG),
    mutant(
        "another head's keys",
        _ATTENTION,
        "head_ / (how_.heads / how_.key_heads)",
        "head_ % how_.key_heads",
        SIZES,
    ),
    mutant(
        "a head's last numbers lost",
        _ATTENTION,
        "for (; at < how_.size; ++at) out[at]",
        "for (; false;) out[at]",
        SIZES,
    ),
    mutant("the bias lost", _LINEAR, "value = value + load(what_.bias + column);", "", OUTPUTS),
    mutant(
        "the last outputs a whole vector",
        _LINEAR,
        "present * sizeof(T)",
        "(present - 1) * sizeof(T)",
        OUTPUTS,
    ),
    mutant(
        "no output beyond the last vector",
        _LINEAR,
        "- column + kLanes - 1) / kLanes",
        "- column + kLanes - 1) / kLanes - (what_.outputs - column > kLanes)",
        OUTPUTS,
    ),
    mutant("the last rows lost", _LINEAR, "(what.rows + most - 1) / most", "what.rows / most", ROWS),
    mutant("the low end lost", _LINEAR, "Vec(low) * load(what_.sums + column)", "Vec(0.0f)", INTEGERS),
    mutant(
        "a row that is not finite made so",
        _LINEAR,
        "return {low + amiss, step};",
        "return {low, step};",
        NOT_FINITE,
    ),
    mutant(
        "gelu one-sided",
        _VECTOR,
        "fmadd(half.abs(), Vec(1.0f) - tail, half)",
        "half * (Vec(2.0f) - tail)",
        ACTIVATION,
    ),
    mutant(
        "another cubic",
        _VECTOR,
        "0.0713548162726f",
        "0.0613548162726f",
        ACTIVATION,
    ),
    mutant(
        "an activation twice",
        _REPLACE,
        "    setattr(module, then, nn.Identity())\n",
        "",
        ORACLE,
    ),
    mutant(
        "any activation is gelu",
        _REPLACE,
        '_ACTIVATIONS.get(type(function).__name__, "none")',
        '_ACTIVATIONS.get(type(function).__name__, "gelu")',
        f"{OF_REPLACE}::test_an_activation_is_known_by_what_it_computes_and_no_other_is_applied",
    ),
    mutant(
        "query and key swapped",
        _LAYERS,
        "query, key, value = (part",
        "key, query, value = (part",
        ORACLE,
    ),
    mutant(
        "a wrapped layer replaced",
        _REPLACE,
        'or "forward" in vars(module):',
        "or False:",
        f"{OF_REPLACE}::test_a_layer_that_is_not_as_pytorch_made_it_stays",
    ),
    mutant(
        "a subclass replaced",
        _REPLACE,
        "type(module) is not Linear",
        "not isinstance(module, Linear)",
        f"{OF_REPLACE}::test_a_layer_that_is_not_as_pytorch_made_it_stays",
    ),
    mutant(
        "weights in fewer steps",
        "kernels/products.py",
        ".clamp(min=smallest) / 127",
        ".clamp(min=smallest) / 120",
        INTEGERS,
    ),
    mutant(
        "stale products",
        "twin.py",
        "            self._hold()\n        self._version",
        "            pass\n        self._version",
        CHANGED,
    ),
    mutant(
        "a twin that follows nothing",
        "twin.py",
        "version == self._version and not self._contents.changed()",
        "self._version",
        CHANGED,
    ),
    mutant(
        "contents always the same",
        "weights.py",
        "return self._look(share) != [self._remembered[share]]",
        "return False",
        f"{FOLLOWED}::test_one_number_written_through_data_shows_within_as_many_batches_as_there_are_shares",
    ),
    mutant(
        "one share looked at for ever",
        "weights.py",
        "self._looks += 1",
        "self._looks += 0",
        f"{FOLLOWED}::test_contents_notice_a_change_of_any_number_within_a_round_and_no_other",
    ),
    mutant(
        "a name of the sources alone",
        _LIBRARY,
        "repr((torch.__version__, flags())).encode()",
        "b''",
        f"{OF_LIBRARY}::test_the_name_is_of_all_that_the_code_depends_on",
    ),
    mutant(
        "nobody waits for who builds",
        _LIBRARY,
        "fcntl.flock(lock, fcntl.LOCK_EX)",
        "pass",
        f"{OF_LIBRARY}::test_of_several_processes_at_once_one_builds_and_all_load",
    ),
    mutant(
        "built in place",
        _LIBRARY,
        "os.replace(made, library)",
        "pass",
        f"{OF_LIBRARY}::test_of_several_processes_at_once_one_builds_and_all_load",
    ),
    mutant(
        "any way is preferred",
        "kernels/products.py",
        "look[way] * _NOTABLY >= max(look.values()) for look in looks",
        "True for look in looks",
        "kernels/test_products.py",
    ),
    mutant(
        "hooks unseen by the twin",
        "kernels/twin.py",
        "return foreign_code(model) or library().missing",
        'return found if (found := foreign_code(model)) and "hooks" not in found else None',
        f"{FOLLOWED}::test_a_hook_set_later_runs_and_is_gone_when_removed",
    ),
)
