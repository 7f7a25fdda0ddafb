"""The student learns the teacher's scores, in as many processes as `torchrun` starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from docs.default_model.student import Student
from docs.default_model.teacher import Lessons
from docs.default_model.texts import Texts


@dataclass(frozen=True)
class Recipe:
    """How the student learns.

    Attributes:
        steps: updates; each sees the lists of `queries_per_step` queries.
        learning_rate: at its highest, after a twentieth of the steps; it ends at 0, linearly.
        mean_weight: what an error common to a whole list counts beside the errors within it. Ranking
            needs only the latter; scores of different queries are comparable through the former.
    """

    steps: int
    queries_per_step: int = 32
    learning_rate: float = 1e-3
    mean_weight: float = 0.2

    def rate(self, step: int) -> float:
        """The factor on the learning rate."""
        warmup = max(1, self.steps // 20)
        return min((step + 1) / warmup, (self.steps - step) / (self.steps - warmup))


def teach(student: Student, texts: Texts, lessons: Lessons, recipe: Recipe) -> None:
    """Train, saying now and then how it goes.

    The loss is the squared error of the logits, split in two: of the list's mean, and within the list. Every
    process takes its part of each step's queries, and all make the same update.

    Args:
        student: changed in place; the same in all processes.
        texts: what `lessons` counts.
        lessons: the lists to learn.
        recipe: how.
    """
    target = (lessons.similarity - lessons.similarity.mean()) / lessons.similarity.std()
    optimizer = torch.optim.AdamW(student.model.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate)
    rank, processes = dist.get_rank(), dist.get_world_size()
    order = torch.empty(0, dtype=torch.int64)
    began, smooth = time.perf_counter(), torch.zeros(2)
    student.model.train()
    for step in range(recipe.steps):
        if len(order) < recipe.queries_per_step:
            order = torch.randperm(len(target))
        rows, order = order[: recipe.queries_per_step], order[recipe.queries_per_step :]
        mine = rows[rank::processes]
        queries = [texts.queries[row] for row in mine.tolist() for _ in range(target.shape[1])]
        passages = [texts.passages[column] for column in lessons.candidates[mine].flatten().tolist()]
        losses = split_error(student.logits(queries, passages).view(len(mine), -1) - target[mine])
        optimizer.zero_grad()
        (losses[0] + recipe.mean_weight * losses[1]).backward()
        average_gradients(student)
        torch.nn.utils.clip_grad_norm_(student.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        smooth.lerp_(losses.detach(), max(0.04, 1 / (step + 1)))
        if (step + 1) % 25 == 0 and rank == 0:
            minutes = (time.perf_counter() - began) / 60
            within, common = smooth.tolist()
            print(
                f"step {step + 1}, {minutes:.1f} min: {within:.3f} within lists, {common:.3f} common",
                flush=True,
            )
    student.model.eval()


def split_error(error: Tensor) -> Tensor:
    """Errors [lists, list length] -> mean squares [2]: within the lists, of the lists' means."""
    mean = error.mean(dim=1, keepdim=True)
    return torch.stack([(error - mean).square().mean(), mean.square().mean()])


def average_gradients(student: Student) -> None:
    """Over the processes, in one exchange."""
    parameters = [each for each in student.model.parameters() if each.grad is not None]
    flat = torch.cat([each.grad.flatten() for each in parameters if each.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for each, part in zip(parameters, flat.split([each.numel() for each in parameters]), strict=True):
        each.grad = part.view_as(each)
