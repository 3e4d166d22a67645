"""Rewards for tests, named on the command line as `helpers_reward:function`."""

import os
import signal

calls = 0


def letters(responses, dialogues):
    """The share of letters: something a policy of random weights can change."""
    return [sum(character.isalpha() for character in text) / max(1, len(text)) for text in responses]


def killed_in_call_4(responses, dialogues):
    """The process dies, as by a power cut, in the fourth step; unless SURVIVE is set."""
    global calls
    calls += 1
    if calls == 4 and not os.environ.get("SURVIVE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return letters(responses, dialogues)


def stopped_in_call_4(responses, dialogues):
    """It raises in the fourth step of the process, once."""
    global calls
    calls += 1
    if calls == 4:
        raise RuntimeError("stopped")
    return letters(responses, dialogues)


seen: list[tuple[str, str]] = []


def remembered(responses, dialogues):
    """What was scored, with the id of the dialogue it was scored against."""
    seen.extend(zip(responses, (dialogue.id for dialogue in dialogues), strict=True))
    return letters(responses, dialogues)


def too_few(responses, dialogues):
    return [1.0] * (len(responses) - 1)


def not_a_number(responses, dialogues):
    return [float("nan")] * len(responses)


def wanted_letters(responses, examples):
    """By a column of the row's own."""
    return [
        float(sum(text.count(letter) for letter in example.columns["wanted"]))
        for text, example in zip(responses, examples, strict=True)
    ]


def alike_where_even(responses, examples):
    """The same for whatever is written to an example of an even id."""
    return [
        1.0 if int(example.id) % 2 == 0 else score
        for example, score in zip(examples, letters(responses, examples), strict=True)
    ]
