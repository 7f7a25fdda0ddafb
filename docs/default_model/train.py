"""Makes xenc's default model, from archives and seed to model card. `make train` runs it.

    torchrun --nproc-per-node 2 -m docs.default_model.train OUT --archives FOLDER

The same machine and packages give the same weights; another machine rounds otherwise, and gives a model of
the same quality.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from correctness_tests.everyday import RankQuality, all_pairs, rank_quality
from docs.default_model.learning import Recipe, teach
from docs.default_model.student import Student, pretrained
from docs.default_model.teacher import Lessons, embed, kept, lessons
from docs.default_model.texts import Texts, make_texts

CARD = Path(__file__).with_name("card.md")
PASSAGES, QUERIES, STEPS = 6_000, 15_000, 437
HELD_OUT = 500
"""So many queries are not learned: the logits are calibrated on them, and compared with the teacher's."""

SPREAD = 2.0
"""Standard deviation of their logits. Those lists reach from the best of all passages to any; texts that have
something to do with each other, as people rank them, spread about half as far."""


@dataclass(frozen=True)
class Agreement:
    """How far the student follows the teacher on queries that it has not learned.

    Attributes:
        correlation: of logits and cosines, over all pairs.
        same_first: share of the lists whose first passage is the same; chance is 1 in the list's length.
        spread: standard deviation of the logits.
    """

    correlation: float
    same_first: float
    spread: float


def logits_of_lists(student: Student, texts: Texts, taught: Lessons) -> Tensor:
    """[queries, list length]; `texts.queries` are those of `taught`, row by row."""
    length = taught.candidates.shape[1]
    queries = [query for query in texts.queries for _ in range(length)]
    passages = [texts.passages[column] for column in taught.candidates.flatten().tolist()]
    with torch.inference_mode():
        return student.logits(queries, passages).view(-1, length)


def calibrate(student: Student, logits: Tensor) -> None:
    """Scale and shift the head until such logits have mean 0 and standard deviation SPREAD."""
    head = student.model.classifier
    with torch.no_grad():
        head.bias.sub_(logits.mean()).div_(logits.std()).mul_(SPREAD)
        head.weight.div_(logits.std()).mul_(SPREAD)


def save(student: Student, folder: Path) -> None:
    """Write weights in float16, half the size, under a config that says float32, the dtype they load in."""
    student.model.config.dtype = torch.float32
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
    halves = {name: tensor.half().contiguous() for name, tensor in student.model.state_dict().items()}
    file = folder / "model.safetensors"
    save_file(halves, file, metadata={"format": "pt"})
    file.chmod(0o644)


def loaded(folder: Path) -> Student:
    """As anybody loads it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.dtype == torch.float32, model.dtype
    return Student(model, AutoTokenizer.from_pretrained(folder))


def everyday(scores: Tensor) -> RankQuality:
    """What scores of `all_pairs()` are worth."""
    return rank_quality(scores.flatten().tolist())


def teachers_everyday() -> RankQuality:
    """What the teacher makes of the same questions."""
    pairs = all_pairs()
    return everyday((embed([query for query, _ in pairs]) * embed([passage for _, passage in pairs])).sum(1))


def agreement(student: Student, texts: Texts, taught: Lessons) -> Agreement:
    """Compare with the teacher."""
    logits = logits_of_lists(student, texts, taught)
    both = torch.stack([logits.flatten(), taught.similarity.flatten()])
    same = logits.argmax(dim=1) == taught.similarity.argmax(dim=1)
    return Agreement(torch.corrcoef(both)[0, 1].item(), same.float().mean().item(), logits.std().item())


def write_card(folder: Path, facts: dict[str, str]) -> None:
    """Fill the card in; `facts` are its names in braces."""
    (folder / "README.md").write_text(CARD.read_text(encoding="utf-8").format(**facts), encoding="utf-8")


def main() -> None:
    """Train, calibrate, save, evaluate what was saved, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--archives", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--steps", type=int, default=STEPS)
    wish = parser.parse_args()
    dist.init_process_group("gloo")
    torch.set_num_threads(1)  # the matrices are small: two processes do more than two threads
    torch.manual_seed(wish.seed)
    student, recipe = pretrained(wish.archives), Recipe(steps=wish.steps)
    every = make_texts(wish.archives, student.tokenizer.get_vocab(), wish.seed)
    texts = Texts(every.passages[: wish.passages], every.queries[: wish.queries])
    taught = ask_teacher(texts, wish.archives, wish.seed)
    held_out = Texts(texts.passages, texts.queries[:HELD_OUT])
    test = Lessons(taught.candidates[:HELD_OUT], taught.similarity[:HELD_OUT])
    learned = Texts(texts.passages, texts.queries[HELD_OUT:])
    teach(student, learned, Lessons(taught.candidates[HELD_OUT:], taught.similarity[HELD_OUT:]), recipe)
    if dist.get_rank() == 0:
        calibrate(student, logits_of_lists(student, held_out, test))
        save(student, wish.out)
        report(wish.out, held_out, test, recipe, seed=wish.seed, queries=len(texts.queries))
    print(f"{time.process_time() / 60:.1f} minutes of one processor", flush=True)
    dist.destroy_process_group()


def ask_teacher(texts: Texts, folder: Path, seed: int) -> Lessons:
    """The processes share the reading: one takes the queries, the next the passages."""
    rank, processes = dist.get_rank(), dist.get_world_size()
    print(f"{len(texts.passages):,} passages, {len(texts.queries):,} queries to read", flush=True)
    files = [
        kept(some, folder, mine=index % processes == rank)
        for index, some in enumerate((texts.queries, texts.passages))
    ]
    dist.barrier()
    queries, passages = (torch.load(file) for file in files)
    return lessons(queries, passages, seed)


def report(folder: Path, texts: Texts, test: Lessons, recipe: Recipe, *, seed: int, queries: int) -> None:
    """Evaluate what lies in `folder`, print it, and write it into the card."""
    student = loaded(folder)
    pairs = all_pairs()
    with torch.inference_mode():
        scores = student.logits([query for query, _ in pairs], [passage for _, passage in pairs])
    found, teacher, followed = everyday(scores), teachers_everyday(), agreement(student, texts, test)
    facts = {
        "seed": str(seed), "steps": f"{recipe.steps:,}", "lists": str(recipe.queries_per_step),
        "rate": f"{recipe.learning_rate:g}", "length": str(test.candidates.shape[1]),
        "passages": f"{len(texts.passages):,}", "held_out": f"{len(texts.queries):,}",
        "processes": str(dist.get_world_size()), "queries": f"{queries:,}",
        "questions": str(found.questions),
        "first": str(found.first_of_theme), "rank": f"{found.mean_reciprocal_rank:.2f}",
        "spread": f"{found.spread:.2f}", "missed": " ".join(found.missed),
        "teacher_first": str(teacher.first_of_theme),
        "teacher_rank": f"{teacher.mean_reciprocal_rank:.2f}", "correlation": f"{followed.correlation:.2f}",
        "same_first": f"{followed.same_first:.0%}", "held_out_spread": f"{followed.spread:.2f}",
        "torch": torch.__version__, "transformers": transformers.__version__,
        "python": platform.python_version(),
    }  # fmt: skip
    write_card(folder, facts)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
