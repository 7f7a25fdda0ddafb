"""Questions about everyday things, each with the passage that answers it, to measure rank quality.

Written for this purpose, in eight themes of four. The passages of a theme are about related things, so that
its topic does not suffice to answer a question. No model has been trained on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Answered(NamedTuple):
    """A question and the one passage that answers it."""

    question: str
    passage: str


_TEXT = """
# garden
- How do plants make food? Green leaves catch sunlight and use its energy to turn water and carbon dioxide
into sugar. This process is called photosynthesis, and oxygen is left over.
- When should I water the garden? Water flower beds early in the morning, before the sun is high: less
evaporates, and the roots can drink all day.
- What do earthworms do for the soil? Worms dig tunnels that let air and rain into the ground, and what they
digest makes the earth richer.
- How can I keep insects off my vegetables? Fine nets over the beds keep beetles and caterpillars away from
cabbage and lettuce, without any poison.
# kitchen
- Why does bread dough rise? Yeast eats the sugar in flour and gives off bubbles of gas, which stretch the
dough until it has doubled in size.
- How long should an egg be boiled? Six minutes in bubbling water give a soft yolk, ten minutes a hard one.
- What keeps milk from going sour? Milk stays fresh for about a week in the refrigerator, because cold slows
down the bacteria that spoil it.
- Which knife is best for cutting tomatoes? A blade with small teeth slips through the skin of soft fruit and
does not crush its inside.
# body
- Why do we need sleep? At night the brain sorts the memories of the day and the body repairs itself. Whoever
rests too little becomes tired, forgetful and ill more often.
- What does the heart do? A muscle the size of a fist pumps blood through the vessels, about seventy times a
minute.
- How do I treat a small burn? Hold the hurt skin under cool running water for ten minutes, then put on a
clean bandage.
- Why do teeth get holes? Bacteria in the mouth turn sugar into acid, which eats away the enamel. Brushing
twice a day helps.
# sky
- Why is the sky blue? Air scatters the short waves of sunlight much more than the long ones, so that blue
light reaches our eyes from every direction.
- What causes thunder? Lightning heats the air around it so suddenly that it expands like an explosion, and
that is the bang we hear.
- Why does the moon change its shape? We see only the half that the sun lights. As it circles the earth in a
month, that half turns towards us and away again, from new to full.
- How are clouds formed? Warm moist air rises and cools, and the vapour in it condenses into tiny drops of
water that float.
# animals
- How do bees make honey? Workers collect nectar from flowers, carry it to the hive, and fan it with their
wings until it is thick and sweet.
- Where do penguins live? These birds, which swim but cannot fly, breed on the cold coasts of the southern
half of the world, most of all in Antarctica.
- Why do cats purr? A kitten hums to tell its mother that all is well. Grown pets do it when they are stroked,
and sometimes to calm themselves.
- How do fish breathe under water? Water flows in through the mouth and over the gills, whose thin skin takes
in its oxygen.
# travel
- How do I get from the airport to the city? A train leaves the terminal for the central station every fifteen
minutes; a taxi takes longer and costs three times as much.
- What should I pack for a hike in the mountains? Bring sturdy boots, a rain jacket, a map, enough to drink
and something to eat on the summit.
- Can I bring my dog on the train? Small pets ride free in a carrier. Bigger ones need a ticket and must be
kept on a leash.
- How do I find a cheap hotel? Rooms cost less outside the holidays. Compare prices on several sites, and stay
a little away from the centre.
# money
- How can I save money every month? Write down what you spend, cancel what you do not use, and move a fixed
part of your salary to a savings account as soon as it arrives.
- What is a mortgage? A bank lends you the price of a house and you pay it back with interest over many years.
If you cannot, the house is sold.
- Why do prices go up? When people want to buy more than there is for sale, or when there is more money about,
everything becomes dearer. That is called inflation.
- How do I pay my taxes? Send the form with your income of last year to the tax office by the end of July; it
tells you what you owe.
# home
- How do I remove a red wine stain from a carpet? Dab the spot with a dry cloth at once, sprinkle salt on it,
and wash it with cold water and a little soap.
- Why is my internet connection slow? Thick walls weaken the wireless signal. Move the router to the middle of
the flat and restart it, or use a cable.
- How can I make my house warmer in winter? Seal the gaps around windows and doors, insulate the roof, and let
no furniture stand before the radiators.
- What should I do when the light bulb is broken? Switch off the electricity, let the lamp cool down, unscrew
the old bulb and put in a new one of the same kind.
"""
"""Under the name of each theme, its questions, each followed by its passage."""


def _themes() -> dict[str, tuple[Answered, ...]]:
    themes = {}
    for part in _TEXT.split("# ")[1:]:
        name, *entries = part.replace("\n- ", "\f").replace("\n", " ").strip().split("\f")
        parts = (entry.partition("? ") for entry in entries)
        themes[name] = tuple(Answered(question + "?", passage) for question, _, passage in parts)
    return themes


THEMES = _themes()
QUESTIONS = tuple(answered for theme in THEMES.values() for answered in theme)


@dataclass(frozen=True)
class RankQuality:
    """How well a scorer ranks the questions above.

    Attributes:
        questions: how many there are.
        missed: those whose answer is not ranked first among the four passages of its theme.
        mean_reciprocal_rank: of the answer among the passages of all themes, in (0, 1].
    """

    questions: int
    missed: tuple[str, ...]
    mean_reciprocal_rank: float

    @property
    def first_of_theme(self) -> int:
        """For how many questions the answer is first of its theme; chance is a quarter."""
        return self.questions - len(self.missed)


def all_pairs() -> list[tuple[str, str]]:
    """Every question with the passage of every question, row by row."""
    return [(asked.question, answer.passage) for asked in QUESTIONS for answer in QUESTIONS]


def rank_quality(scores: Sequence[float]) -> RankQuality:
    """The rank quality of the scores of `all_pairs()`. A tie counts against the answer."""
    count = len(QUESTIONS)
    missed, reciprocal = [], 0.0
    theme_of = [name for name, theme in THEMES.items() for _ in theme]
    for row in range(count):
        of_row = scores[row * count : (row + 1) * count]
        better = [col for col in range(count) if col != row and of_row[col] >= of_row[row]]
        if any(theme_of[col] == theme_of[row] for col in better):
            missed.append(QUESTIONS[row].question)
        reciprocal += 1 / (1 + len(better))
    return RankQuality(count, tuple(missed), reciprocal / count)
