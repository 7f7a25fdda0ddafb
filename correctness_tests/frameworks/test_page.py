"""docs/frameworks.md: each example runs, prints what the page says, and is scored by xenc."""

from __future__ import annotations

import re

import pytest

from correctness_tests.frameworks.conftest import pairs_scored
from correctness_tests.test_docs import TEXTS, blocks
from xenc import DEFAULT_MODEL

FIRST, *EXAMPLES = blocks(TEXTS["docs/frameworks.md"], "python")
PACKAGES = [re.match(r"from (\w+)", example)[1] for example in EXAMPLES]


def test_the_page_has_an_example_of_each_framework():
    assert PACKAGES == ["langchain_classic", "llama_index", "haystack", "sentence_transformers"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("package", "example"), [*zip(PACKAGES, EXAMPLES, strict=True)], ids=PACKAGES)
def test_an_example_ranks_with_xenc_and_prints_the_passage_about_bees(package, example, dynamo_alone, capsys):
    pytest.importorskip(package, reason="not installed: pip install 'xenc[frameworks]'")
    names = {}
    for code in (FIRST, example):
        exec(
            compile(code.replace("BAAI/bge-reranker-base", DEFAULT_MODEL), "docs/frameworks.md", "exec"),
            names,
        )
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed == names["passages"][1]
    model = names["model"] if package == "sentence_transformers" else names["models"][0]
    assert pairs_scored(model) == len(names["passages"])
