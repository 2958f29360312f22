"""`python -m coca_jax.search` as a person mistypes it; a whole search is in test_commands.py."""

import pytest
import running


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--images=photos", "a dog"], "--checkpoint is missing"),
        (["--checkpoint=run", "a dog"], "--images is missing: name the folder of images, or with --index"),
        (["--checkpoint=run", "--images=photos"], "there is nothing to look for: write a sentence"),
        (["--checkpoint=run", "--images=photos", "-k=0", "a dog"], "--k=0: 0 is not a positive integer"),
        (["--checkpoint=run", "--images=photos", "-k=many", "a dog"], "many"),
        (["--checkpoint=absent", "--images=photos", "a dog"], "absent"),
    ],
)
def test_mistakes_are_named_in_one_sentence(flags, words):
    status, out, err = running.call(running.command("search", *flags))
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and words in errors[0] and "Traceback" not in err and not out, err
