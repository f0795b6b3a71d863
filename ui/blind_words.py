"""What a blind test says, as sentences. Pure functions, no gradio.

Before a person asks for the result nothing says which side is which: then `named` is off, and the words speak of one of the two.
"""

from __future__ import annotations

from dpo.blind import BlindTest
from dpo.jobs import Job
from dpo.outcomes import MadePairs, Outcome, VoterResult
from dpo.verdict import GOAL, MOST_MORE, RATES, Verdict, votes_needed
from ui.words import count

SAYS_SOMETHING = 1.5  # evidence below this, to one, is none
MOST_TOLD = 10_000


def verdict_words(verdict: Verdict, named: bool) -> str:
    """Such as "29 of 40 for the adapter; the evidence is 12 to 1; go on, or stop: these numbers hold whenever you stop."."""
    if not verdict.votes:
        return f"{count(verdict.ties, 'tie')}, and nothing decided yet." if verdict.ties else "No votes yet."
    parts = [_score(verdict, named), evidence_words(verdict)]
    if verdict.decided_after is None:
        parts.append("go on, or stop: these numbers hold whenever you stop.")
    elif verdict.evidence < GOAL:
        parts.append(f"it was decided after {count(verdict.decided_after, 'vote')}, and that answer holds.")
    else:
        parts.append("that decides it; go on, or stop: the answer will hold.")
    return "; ".join(parts)


def evidence_words(verdict: Verdict) -> str:
    if verdict.evidence < SAYS_SOMETHING:
        return "no evidence of a difference yet"
    if verdict.evidence >= MOST_TOLD:
        return f"the evidence is over {MOST_TOLD:,} to 1"
    # Never rounded up to what would decide it.
    shown = min(round(verdict.evidence), int(GOAL) - 1) if verdict.evidence < GOAL else int(verdict.evidence)
    return f"the evidence is {shown:,} to 1"


def needed_words(verdict: Verdict) -> str:
    """How many more votes would likely decide it; "" where it is decided."""
    if verdict.decided_after is not None:
        return ""
    leads = 2 * verdict.wins >= verdict.votes
    found = [votes_needed(verdict.wins, verdict.votes, rate if leads else 1 - rate) for rate in RATES]
    numbers = [f"over {MOST_MORE:,}" if more is None else f"{more:,}" for more in found]
    rates = ", ".join(f"{rate:.0%}" for rate in RATES[:-1]) + f" or {RATES[-1]:.0%}"
    return f"If the truth is {rates} for one side: about {', '.join(numbers[:-1])} or {numbers[-1]} more votes."


def short_verdict(outcome: Outcome) -> str:
    """For the list of runs: "blind test: 29 of 40, decided"."""
    verdict = outcome.verdict
    if not verdict.votes:
        return "blind test: ties only"
    state = {"adapter": "better than base", "base": "worse than base", "": evidence_words(verdict)}[verdict.winner]
    return f"blind test: {verdict.wins} of {verdict.votes} for the adapter, {state}"


def rate_words(verdict: Verdict) -> str:
    """Such as "73% for the adapter, 95% interval 49% to 90%"."""
    if verdict.rate is None:
        return "no decisive vote"
    low, high = verdict.interval
    return f"{verdict.rate:.0%} for the adapter, 95% interval {low:.0%} to {high:.0%}"


def card_facts(outcome: Outcome) -> list[str]:
    test, verdict = outcome.test, outcome.verdict
    facts = [count(verdict.votes, "vote"), count(verdict.ties, "tie"), count(len(outcome.prompts), "prompt")]
    facts.append("1 person" if len(outcome.voters) == 1 else f"{len(outcome.voters)} people")
    if test.pairs:
        facts.append(f"trained on {count(test.pairs, 'pair')} in {count(test.steps, 'step')}")
    return [*facts, f"strength {test.strength:g}"]


def bootstrap_words(outcome: Outcome) -> str:
    """The same rate by drawing whole prompts again; it says more where prompts have several seeds."""
    if outcome.by_prompt is None:
        return ""
    rate, low, high = outcome.by_prompt
    few = f" With {count(len(outcome.prompts), 'prompt')} this is rough." if len(outcome.prompts) < 10 else ""
    return f"Prompt by prompt, a tie for half: {rate:.0%}, {low:.0%} to {high:.0%} if other prompts had been drawn.{few}"


def voter_words(voter: VoterResult) -> str:
    said = f"{voter.name or 'without a name'}: {voter.wins} of {voter.votes} for the adapter"
    ties = f", {count(voter.ties, 'tie')}" if voter.ties else ""
    shared = f"; with the others in {voter.agreed} of {voter.shared}" if voter.shared else ""
    return f"{said}{ties}{shared}"


def making_words(test: BlindTest, ready: int, job: Job | None) -> str:
    """How far the images of a test are; "" where all are there."""
    total = len(test.items)
    if ready >= total:
        return ""
    here = f"{ready} of {count(total, 'pair')} made"
    if job is None or not job.is_active:
        return f"{job.message} {here}." if job is not None and job.state == "failed" else f"{here}."
    if job.stop.is_set():
        return f"{here}. Stopping."
    if job.state == "queued":
        return f"{here}. The rest waits for the device."
    message = job.message if not job.total else ""
    return f"{here}{f', {message}' if message else ''}."


def made_words(made: MadePairs) -> str:
    """What became of the votes, and that their prompts are no test any more."""
    parts = [f"{count(made.new, 'new pair')} from these votes."]
    if made.already:
        parts.append(f"{made.already:,} {'was' if made.already == 1 else 'were'} there before.")
    if made.contrary:
        parts.append(
            f"{made.contrary:,} the other way round in the review already: turn {'it' if made.contrary == 1 else 'them'} there."
        )
    if made.undecided:
        parts.append(f"{made.undecided:,} without a majority.")
    if made.new:
        share = "All" if made.trained == made.new else f"{made.trained:,}"
        parts.append(
            f"{share} of their prompts will be trained on, so they are held out no more: the next test leaves them out."
            if made.trained
            else "Their prompts stay held out, for validation; the next test leaves them out."
        )
    return " ".join(parts)


def _score(verdict: Verdict, named: bool) -> str:
    front = max(verdict.wins, verdict.votes - verdict.wins)
    if 2 * front == verdict.votes:
        return f"{front} to {front}"
    who = "one of the two" if not named else "the adapter" if front == verdict.wins else "the base model"
    return f"{front} of {verdict.votes} for {who}"
