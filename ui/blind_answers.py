"""What the blind test's page asks of the app: keep votes, say what comes next, show the result, make pairs. See blind.py.

Everything in a payload is whatever a browser sent. A page is told two images of a pair in an order drawn anew for every page and
pair; it sends their keys back, and only here is known whose they are.
"""

from __future__ import annotations

import hashlib
import random

from PIL import Image

from dpo import StudioError
from dpo.blind import QUESTIONS, BlindError, BlindItem, BlindTest, find_test, list_tests, resume_test
from dpo.cards import PICTURE_PAIRS, write_card
from dpo.metadata import content_key
from dpo.outcomes import Outcome, count_votes, drawn_by_lot, find_outcome, make_pairs
from dpo.verdict import LOG_GOAL
from dpo.votes import SIDES, Vote
from ui.blind_words import (
    bootstrap_words,
    card_facts,
    made_words,
    making_words,
    needed_words,
    rate_words,
    verdict_words,
    voter_words,
)
from ui.downloads import export_url
from ui.images import file_url
from ui.picker_answers import LONGEST_NAME
from ui.rights import OWNER, may, open_to
from ui.session import Studio, limit, token_login
from ui.words import shown_prompt

MOST_OPERATIONS, MOST_SCREENS, MOST_HELD, MOST_RECENT = 100, 12, 64, 24
NO_VOTER = "voting is for a login with the role rater"


@open_to("viewer")
def answer_voter(studio: Studio, payload: dict) -> dict:
    """Store the page's votes, then say what is next of a test and a question.

    `payload`: test and question ("" or unknown: the newest, the first), operations, want (screens), have (numbers of items it
    holds), recent (whether votes that can be undone are asked for), rater.
    """
    rater = token_login(payload) or _text(payload, "rater").strip()[:LONGEST_NAME]
    operations = [entry for entry in _list(payload, "operations") if isinstance(entry, dict)][:MOST_OPERATIONS]
    may_vote = may(payload.get("role", OWNER), "rater")
    kept, refused = _resolve(studio, operations, token_login(payload)) if may_vote else ([], [NO_VOTER][: len(operations)])
    only_of = None if payload.get("role", OWNER) == OWNER else token_login(payload)
    applied = studio.project.votes.apply(kept, only_of) if kept else None
    tests = list_tests(studio.project)
    answer = {"stored": len(operations), "refused": [*refused, *(applied.refused if applied else ())]}
    if not tests:
        return answer | {"tests": []}
    test = next((test for test in tests if test.name == payload.get("test")), tests[0])
    question = payload.get("question") if payload.get("question") in test.questions else test.questions[0]
    votes = studio.project.votes.votes(test.name, question)
    outcome = count_votes(test, question, votes)
    ready, seen = test.ready(), {vote.item for vote in votes if vote.rater == rater}
    have = {number for number in _list(payload, "have")[:MOST_HELD] if isinstance(number, int)}
    waiting = _in_order(test, rater, [item for item in ready if item.number not in seen], votes)
    want = limit(payload.get("want"), MOST_SCREENS) if may_vote else 0
    screens = [item for item in waiting if item.number not in have][:want]
    job = studio.jobs.find("test", test.name)
    is_making = job is not None and job.is_active
    return answer | {
        "tests": [each.name for each in tests], "test": test.name, "question": question,
        "questions": [[name, QUESTIONS[name]] for name in test.questions],
        "screens": [_screen(studio, test, item) for item in screens],
        "done": len(seen), "total": len(test.items), "left": len(waiting),
        "making": {"words": making_words(test, len(ready), job), "active": is_making, "missing": len(ready) < len(test.items)},
        "verdict": _verdict(outcome),
        "recent": _recent(studio, test, votes, rater) if payload.get("recent") is True and may_vote else None,
    }  # fmt: skip


def make_images(studio: Studio, payload: dict) -> dict:
    """Stop the making of a test's images, which keeps those that are there, or go on with it. `payload`: test, do."""
    test = find_test(studio.project, _text(payload, "test"))
    job = studio.jobs.find("test", test.name)
    if payload.get("do") == "resume":
        studio.check_place(test.model)
        studio.check_place(test.adapter, is_model=False)
        resume_test(studio.project, studio.jobs, test)
    elif job is not None and not studio.jobs.cancel(job):
        job.stop.set()
    return {}


def describe_card(studio: Studio, test: str, question: str) -> dict:
    """The result, as the page shows it. Raises BlindError for a test or a question that is not there."""
    outcome = _outcome(studio, {"test": test, "question": question})
    verdict = outcome.verdict
    low, high = verdict.interval
    return {
        "test": test, "question": question, "asked": QUESTIONS[question], "run": outcome.test.run or outcome.test.name,
        "rate": rate_words(verdict), "words": verdict_words(verdict, named=True), "needed": needed_words(verdict),
        "low": low, "high": high, "at": verdict.rate, "facts": card_facts(outcome), "bootstrap": bootstrap_words(outcome),
        "prompts": [
            {"prompt": shown_prompt(line.prompt), "wins": line.wins, "votes": line.votes, "ties": line.ties}
            for line in outcome.prompts
        ],
        "voters": [voter_words(voter) for voter in outcome.voters],
        "pairs": _pictures(studio, outcome), "decisions": len(outcome.decisions),
    }  # fmt: skip


def keep_card(studio: Studio, payload: dict) -> dict:
    """Write the result down; where its picture and its JSON can be had. `payload`: test, question."""
    outcome = _outcome(studio, payload)
    paths = write_card(studio.project, outcome, verdict_words(outcome.verdict, named=True))
    return {"picture": export_url(studio, paths[0].name), "record": export_url(studio, paths[1].name)}


def pair_votes(studio: Studio, payload: dict) -> dict:
    """Make pairs of the votes; says what became of them. `payload`: test, question."""
    return {"words": made_words(make_pairs(studio.project, _outcome(studio, payload)))}


VOTER_ANSWERS = {"vote": answer_voter, "make": make_images}
CARD_ANSWERS = {"keep": keep_card, "pair": pair_votes}


def _verdict(outcome: Outcome) -> dict:
    """Without a word of which side is which. `share` is of the way to a decision, in the logarithm."""
    verdict = outcome.verdict
    is_decided = verdict.decided_after is not None
    share = 1.0 if is_decided else max(0.0, verdict.log_evidence / LOG_GOAL)
    words = verdict_words(verdict, named=False)
    return {"words": words, "needed": needed_words(verdict), "share": share, "decided": is_decided, "any": bool(outcome.prompts)}


def _outcome(studio: Studio, payload: dict) -> Outcome:
    question = _text(payload, "question")
    if question not in QUESTIONS:
        raise BlindError(f"question={question!r} is not known. Load the page again.")
    return find_outcome(studio.project, _text(payload, "test"), question)


def _resolve(studio: Studio, operations: list[dict], login: str) -> tuple[list[dict], list[str]]:
    """Operations as the store takes them, with the side that was at the left; and why others are none."""
    kept, refused = [], []
    for operation in operations:
        said = {name: operation.get(name) for name in ("client", "number", "op", "undoes") if name in operation}
        if operation.get("op") == "vote":
            try:
                left = _left_side(studio, operation)
            except (StudioError, OSError) as error:
                refused.append(str(error))
                continue
            said |= {name: operation.get(name) for name in ("test", "item", "question", "result")}
            said |= {"left": left, "rater": login or operation.get("rater", "")}
        kept.append(said)
    return kept, refused


def _left_side(studio: Studio, operation: dict) -> str:
    test = find_test(studio.project, _text(operation, "test"))
    item = next((item for item in test.items if item.number == operation.get("item")), None)
    if item is None or operation.get("question") not in test.questions:
        raise BlindError(f"{test.name} has no pair {operation.get('item')!r} with that question.")
    keys = [content_key(test.image(item, side)) for side in SIDES]
    shown = operation.get("images")
    if shown not in (keys, keys[::-1]):
        raise BlindError(f"These are not the images of pair {item.number} of {test.name} any more.")
    return SIDES[keys.index(shown[0])]


def _in_order(test: BlindTest, rater: str, items: list[BlindItem], votes: list[Vote]) -> list[BlindItem]:
    """Those that nobody has voted on go first; else by lot, the same for a person at every asking, another for the next one."""
    voted = {vote.item for vote in votes}
    lot = {item.number: hashlib.blake2b(f"{test.name} {rater} {item.number}".encode()).digest() for item in items}
    return sorted(items, key=lambda item: (item.number in voted, lot[item.number]))


def _screen(studio: Studio, test: BlindTest, item: BlindItem, left: str = "") -> dict:
    """`left`: one of SIDES, "" for whichever the coin says."""
    sides = list(SIDES if left == SIDES[0] else SIDES[::-1])
    if not left:
        random.shuffle(sides)
    images = [_image(studio, test, item, side) for side in sides]
    aspect = images[0]["width"] / images[0]["height"]
    return {"item": item.number, "mode": "duel", "prompt": shown_prompt(item.prompt), "aspect": aspect, "images": images}


def _image(studio: Studio, test: BlindTest, item: BlindItem, side: str) -> dict:
    """Nothing of this differs between the sides but what is in the image: drawn anew, without metadata, named by its content."""
    path = test.image(item, side)
    url = file_url(studio, path)
    with Image.open(path) as image:
        width, height = image.size
    return {"key": content_key(path), "url": url, "full": url, "width": width, "height": height, "seed": item.seed}


def _recent(studio: Studio, test: BlindTest, votes: list[Vote], rater: str) -> list[dict]:
    """This person's last votes, oldest first, each with its screen as it was."""
    items = {item.number: item for item in test.ready()}
    own = [vote for vote in votes if vote.rater == rater and vote.item in items][-MOST_RECENT:]
    return [{"vote": [vote.client, vote.number], "screen": _screen(studio, test, items[vote.item], vote.left)} for vote in own]


def _pictures(studio: Studio, outcome: Outcome) -> list[dict]:
    found = []
    for item in drawn_by_lot(outcome, PICTURE_PAIRS):
        sides = {side: file_url(studio, outcome.test.image(item, side)) for side in SIDES}
        chosen = outcome.decisions[item.number][0]
        found.append({"prompt": shown_prompt(item.prompt), "seed": item.seed, "chosen": chosen, **sides})
    return found


def _list(payload: dict, name: str) -> list:
    return payload[name] if isinstance(payload.get(name), list) else []


def _text(payload: dict, name: str) -> str:
    return payload[name] if isinstance(payload.get(name), str) else ""
