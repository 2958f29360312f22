"""Actions: the frames' order is the direction, and the frames show the motion."""

import dataclasses

import numpy as np
import pytest

from coca_jax.data.digit_scenes import actions
from coca_jax.data.digit_scenes.rendering import RGB
from coca_jax.data.digit_scenes.tasks import CLASSES, task_plan, task_scene


def clips(action: str, count: int = 25):
    """Clips of an action."""
    label = CLASSES["actions"].index(action)
    found = (index for index in range(100_000) if task_plan("actions", index, "train")[1].answer == action)
    for _ in range(count):
        scene = task_scene("actions", next(found))
        assert scene.label == label
        yield scene


def ink(scene) -> np.ndarray:
    """How much each pixel differs from the least of its values over the clip's time, [frames, size, size]."""
    color = np.array(RGB[scene.text.split()[1]], float)
    towards = scene.image @ (color / np.linalg.norm(color))
    return np.clip(towards - np.median(towards[[0, -1]], axis=(1, 2))[:, None, None].min() - 60, 0, None)


@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_an_opposite_action_is_the_same_clip_reversed(split):
    for index in range(60):
        dice, plan = task_plan("actions", index, split)
        clip = actions.picture(plan, dice, split, 40)
        first, second = actions.MOTIONS[plan.motion]
        assert plan.answer == (second if plan.reverse else first)
        opposite = dataclasses.replace(plan, reverse=not plan.reverse)
        reverse = actions.picture(opposite, task_plan("actions", index, split)[0], split, 40)
        assert np.array_equal(clip[::-1], reverse) and not np.array_equal(clip, reverse)


def test_the_directions_are_independent_of_all_else():
    plans = [task_plan("actions", index, "train")[1] for index in range(3_000)]
    for motion in range(len(actions.MOTIONS)):
        reverse = [plan.reverse for plan in plans if plan.motion == motion]
        assert len(reverse) > 300 and 0.4 < np.mean(reverse) < 0.6
    assert len(actions.ACTIONS) == len(set(actions.ACTIONS)) == 14


def centre(weights: np.ndarray) -> tuple[float, float]:
    rows, columns = np.indices(weights.shape)
    return float((weights * columns).sum() / weights.sum()), float((weights * rows).sum() / weights.sum())


@pytest.mark.parametrize(("word", "axis", "sign"), [("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1)])
def test_a_moving_digit_goes_where_the_words_say(word, axis, sign):
    for action in CLASSES["actions"]:
        if action.startswith("moves") and word in action.split():
            for scene in clips(action, 8):
                places = [sign * centre(frame)[axis] for frame in ink(scene)]
                assert (np.diff(places) > 0).all() and places[-1] - places[0] > 10, scene.text


@pytest.mark.parametrize(("action", "sign"), [("grows", 1), ("shrinks", -1), ("fades in", 1), ("fades out", -1)])
def test_ink_becomes_more_or_less(action, sign):
    for scene in clips(action):
        amounts = [sign * float(frame.sum()) for frame in ink(scene)]
        assert amounts[-1] > amounts[0] and sum(np.diff(amounts) >= 0) >= 6, scene.text


@pytest.mark.parametrize(("action", "sign"), [("turns clockwise", 1), ("turns counterclockwise", -1)])
def test_a_one_turns_in_the_right_direction(action, sign):
    for scene in (scene for scene in clips(action, 120) if " one " in scene.text):
        axes = []
        for frame in ink(scene):
            x, y = centre(frame)
            rows, columns = np.indices(frame.shape)
            xx, yy, xy = (
                (frame * a * b).sum()
                for a, b in ((columns - x, columns - x), (rows - y, rows - y), (columns - x, rows - y))
            )
            axes.append(0.5 * np.arctan2(2 * xy, xx - yy))  # the main axis' angle, y down: it grows clockwise
        turned = np.unwrap(axes, period=np.pi)
        assert sign * (turned[-1] - turned[0]) > np.radians(60), scene.text


def test_a_caption_names_digit_color_and_action():
    for index in range(200):
        plan = task_plan("actions", index, "train")[1]
        (thing,) = plan.forms[0].things
        assert plan.text.split(maxsplit=1)[1] == f"{thing.color} {thing.digit} {plan.answer}"
