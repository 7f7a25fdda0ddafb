"""Within the block sentence-transformers' `CrossEncoder(...)` is xenc's, whoever holds it; nothing leaks."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest
import sentence_transformers
from sentence_transformers import CrossEncoder as Held

import xenc
from correctness_tests.comparison import assert_same
from correctness_tests.frameworks.conftest import EAGER, OWN_INIT, PASSAGES, QUESTION, is_undone, pairs_scored
from xenc import ModelError, replace_cross_encoders

LOGGER = "xenc.frameworks"


def build(path, kind=None, **options):
    return (kind or Held)(str(path), device="cpu", **options)


def imported_now():
    from sentence_transformers import CrossEncoder

    return CrossEncoder


WAYS = {
    "held by a module": lambda: Held,
    "read off the package": lambda: sentence_transformers.CrossEncoder,
    "read off its module": lambda: importlib.import_module(Held.__module__).CrossEncoder,
    "imported in the block": imported_now,
    "an old module's name": lambda: (
        importlib.import_module("sentence_transformers.cross_encoder").CrossEncoder
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_however_a_framework_imports_the_class_it_builds_xencs_which_scores_after_the_block(tiny, plain, way):
    with replace_cross_encoders(**EAGER) as models:
        model = build(tiny, way())
    assert models == [model]
    assert is_undone()
    assert_same(model.rank(QUESTION, PASSAGES), plain.rank(QUESTION, PASSAGES))
    assert pairs_scored(model) == len(PASSAGES)
    assert type(build(tiny, way())) is Held


def test_a_class_imported_in_the_block_is_the_original_and_looks_like_it(plain):
    before = inspect.signature(Held)
    with replace_cross_encoders() as models:
        imported = imported_now()
        assert inspect.signature(imported) == before
        assert isinstance(plain, imported)
        models.append(plain)  # so that no warning is due
    assert imported is Held is sentence_transformers.CrossEncoder


def test_the_options_arrive_and_what_the_framework_passes_wins(tiny):
    options = {"long_documents": "max", "max_waiting_pairs": 7, **EAGER}
    with replace_cross_encoders(**options):
        model, other = build(tiny), build(tiny, execution="sdpa-sorted", max_length=32)
    assert model.execution == xenc.PRESETS["packed-eager"]
    assert (model.long_documents, model.max_waiting_pairs) == ("max", 7)
    assert other.execution == xenc.PRESETS["sdpa-sorted"]
    assert (other.long_documents, other.max_seq_length) == ("max", 32)


def test_the_options_are_those_that_xencs_constructor_has_beyond_sentence_transformers():
    own = inspect.signature(xenc.CrossEncoder.__init__.__wrapped__).parameters
    ours = inspect.signature(replace_cross_encoders).parameters
    assert {name: each.default for name, each in own.items() if each.kind is each.KEYWORD_ONLY} == {
        name: each.default for name, each in ours.items()
    }


def test_subclasses_and_xencs_own_and_models_built_before_stay_what_they_are(tiny, plain):
    class Somebodys(Held):
        pass

    with replace_cross_encoders(long_documents="max", **EAGER) as models:
        assert type(build(tiny, Somebodys)) is Somebodys
        assert build(tiny, xenc.CrossEncoder).long_documents == "cut"
        assert models == []
        build(tiny)
    assert type(plain) is Held


def test_an_error_in_the_block_undoes_it(tiny):
    with pytest.raises(ZeroDivisionError), replace_cross_encoders():
        raise ZeroDivisionError
    assert is_undone()
    assert type(build(tiny)) is Held


def test_a_model_that_cannot_be_loaded_raises_xencs_error_and_is_none_of_those_built(tmp_path):
    with pytest.raises(ModelError, match="nowhere"), replace_cross_encoders() as models:
        build(tmp_path / "nowhere")
    assert models == []


def test_of_nested_blocks_the_innermost_gives_the_options_and_both_list_the_model(tiny):
    with replace_cross_encoders(max_waiting_pairs=1, **EAGER) as outer:
        with replace_cross_encoders(max_waiting_pairs=2, **EAGER) as inner:
            first = build(tiny)
        second = build(tiny)
    assert [first.max_waiting_pairs, second.max_waiting_pairs] == [2, 1]
    assert inner == [first]
    assert outer == [first, second]


def test_other_threads_go_on_building_sentence_transformers_own(tiny):
    with ThreadPoolExecutor(1) as elsewhere, replace_cross_encoders(**EAGER) as models:
        assert type(elsewhere.submit(build, tiny).result()) is Held
        assert models == []
        assert type(build(tiny)) is xenc.CrossEncoder


def test_blocks_of_two_threads_may_end_in_any_order(tiny):
    theirs, ours = replace_cross_encoders(max_waiting_pairs=1), replace_cross_encoders(max_waiting_pairs=2)
    with ThreadPoolExecutor(1) as elsewhere:
        models = elsewhere.submit(theirs.__enter__).result()
        with ours:
            model = elsewhere.submit(build, tiny, execution="packed-eager").result()
            elsewhere.submit(theirs.__exit__, None, None, None).result()
            assert type(elsewhere.submit(build, tiny).result()) is Held
            mine = build(tiny, execution="packed-eager")
        assert is_undone()
    assert models == [model]
    assert [model.max_waiting_pairs, mine.max_waiting_pairs] == [1, 2]


def test_a_task_that_outlives_its_block_builds_what_is_built_outside(tiny):
    async def run():
        ended = asyncio.Event()

        async def late():
            first = await asyncio.to_thread(build, tiny)
            await ended.wait()
            with_ours_open = build(tiny)
            return first, with_ours_open

        with replace_cross_encoders(**EAGER) as models:
            task = asyncio.create_task(late())
            while not models:
                await asyncio.sleep(0.01)
        with replace_cross_encoders(**EAGER) as models:
            models.append(None)
            ended.set()
            first, second = await task
        return type(first), type(second)

    assert asyncio.run(run()) == (xenc.CrossEncoder, Held)


def test_a_block_in_which_nothing_was_built_says_so(tiny, caplog):
    def said():
        return [record.getMessage() for record in caplog.records if record.name == LOGGER]

    with replace_cross_encoders(**EAGER):
        build(tiny)
    with pytest.raises(ZeroDivisionError), replace_cross_encoders():
        raise ZeroDivisionError  # which says enough
    assert said() == []
    with replace_cross_encoders():
        pass
    (message,) = said()
    assert "no CrossEncoder was built in the block" in message


def test_what_somebody_put_in_the_constructors_place_meanwhile_stays(tiny):
    calls = []

    def counted(self, *args, **kwargs):
        calls.append(type(self))
        return replaced(self, *args, **kwargs)

    try:
        with replace_cross_encoders(**EAGER):
            replaced, Held.__init__ = Held.__init__, counted
            assert type(build(tiny)) is xenc.CrossEncoder
        assert Held.__init__ is counted
        assert type(build(tiny)) is Held
    finally:
        Held.__init__ = OWN_INIT
    assert calls == [Held, xenc.CrossEncoder, Held]
