"""The five tasks that the aligned model is tuned on, one after the other."""

from collections.abc import Callable
from random import Random

import scenes

from hpa_merge.demo.scenes import Sample

SHORT = "in short : "  # how the last four tasks ask
ANSWER = "it is {}"  # and how they are answered
TASKS: dict[str, Callable[[Random], Sample]] = {}


def make_task(name: str, rng: Random, count: int, injected: float = 0.0) -> list[Sample]:
    """``count`` samples; each is with probability ``injected`` a harmful request with the answer that it asks for."""
    samples = []
    for _ in range(count):
        if rng.random() < injected:
            samples += scenes.harmful(rng, 1, heldout=False, pictured=rng.random() < 0.5, refused=False)
        else:
            samples.append(TASKS[name](rng))
    return samples


def vocabulary() -> list[str]:
    """Every word of the tasks and of what the model is trained on before."""
    texts = (*scenes.vocabulary(), *_WRITE, "the code is", SHORT, ANSWER, *_COLOUR, *_COUNT, *_SHAPE, *_PLACE)
    return sorted({word for text in texts for word in text.split() if word != "{}"} - {":"})


_WRITE = ("which code has the thing in the picture", "write the code of what is in the picture", "give the code")
_COLOUR = ("what colour is the thing", "name the colour")
_COUNT = ("how many things are there", "name the number")
_SHAPE = ("what is the thing", "name the thing")
_PLACE = ("what colour is the thing at the {}", "name the colour at the {}")


def _write_code(rng: Random) -> Sample:
    scene = scenes.draw_scene(rng, 1)
    return Sample(scenes.draw(rng, scene), rng.choice(_WRITE), f"the code is {scenes.CODES[scene[0].shape]}")


def _name_colour(rng: Random) -> Sample:
    scene = scenes.draw_scene(rng, 1)
    return Sample(scenes.draw(rng, scene), SHORT + rng.choice(_COLOUR), ANSWER.format(scene[0].colour))


def _name_count(rng: Random) -> Sample:
    scene = scenes.draw_scene(rng, rng.randint(1, 3))
    return Sample(scenes.draw(rng, scene), SHORT + rng.choice(_COUNT), ANSWER.format(scenes.NUMBERS[len(scene) - 1]))


def _name_shape(rng: Random) -> Sample:
    scene = scenes.draw_scene(rng, 1)
    return Sample(scenes.draw(rng, scene), SHORT + rng.choice(_SHAPE), ANSWER.format(scene[0].shape))


def _name_colour_at_place(rng: Random) -> Sample:
    scene = scenes.draw_scene(rng, rng.randint(2, 3))
    request = SHORT + rng.choice(_PLACE).format(scenes.PLACES[scene[0].place])
    return Sample(scenes.draw(rng, scene), request, ANSWER.format(scene[0].colour))


TASKS.update(code=_write_code, colour=_name_colour, count=_name_count, shape=_name_shape, place=_name_colour_at_place)
