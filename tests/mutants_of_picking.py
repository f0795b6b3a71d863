"""Mistakes in scanning, picking and ranking, for `python -m tests.mutants`: (name, file, old, new, tests that must fail)."""

PICKING = [
    (
        "an undone pick still makes a pair", "dpo/book.py",
        "if position in self._undone:", "if False:",
        "tests/test_picks.py",
    ),
    (
        "an image is used in two pairs", "dpo/judging.py",
        "elif not (used & keys or (not pick.rejected and imported & keys)):", "else:",
        "tests/test_judging.py",
    ),
    (
        "a tie counts as two votes", "dpo/ranking.py",
        "weight / 2 if is_tie else weight", "weight",
        "tests/test_ranking.py",
    ),
    (
        "duels are only asked at the best end", "dpo/ranking.py",
        "is_best_end=turn % 2 == 0", "is_best_end=True",
        "tests/test_next_duels.py",
    ),
    (
        "a page is robbed of what it shows", "dpo/leases.py",
        "FIRM if takes else 2**31", "0 if takes else 2**31",
        "tests/test_leases.py",
    ),
    (
        "a second opinion counts as a vote", "dpo/judging.py",
        'pick.op not in ("duel", "triage") or pick.is_second or', 'pick.op not in ("duel", "triage") or',
        "tests/test_judging.py",
    ),
    (
        "a group opened again keeps its old picks", "dpo/book.py",
        "later > position and later not in self._undone", "False",
        "tests/test_picks.py",
    ),
    (
        "an imported pair counts twice", "dpo/picks.py",
        'client = f"{IMPORTED}-{attempt}"', 'client = f"{IMPORTED}-{attempt}-{time.time_ns()}"',
        "tests/test_picked_pairs.py",
    ),
    (
        "a picked copy leaves its other copies unpicked", "dpo/progress.py",
        "if len(first) > len(shown):", "if False:",
        "tests/test_progress.py",
    ),
    (
        "two pages get the same group", "dpo/leases.py",
        "DELETE FROM leases WHERE client = ? OR until <= ?", "DELETE FROM leases WHERE client = ? OR until > ?",
        "tests/test_leases.py",
    ),
    (
        "a page gets a duel that it has once more", "dpo/screens.py",
        "judgement.avoid | waiting", "judgement.avoid",
        "tests/test_screens.py",
    ),
    (
        "copies count as images", "dpo/catalogue.py",
        "count(*) - count(DISTINCT content)", "0 * count(content)",
        "tests/test_catalogue.py",
    ),
    (
        "any two shapes may be compared", "dpo/groups.py",
        "if high <= low * (1 + ASPECT_TOLERANCE):", "if high <= low * 100:",
        "tests/test_catalogue.py",
    ),
    (
        "pixels are searched again at every scan", "dpo/scan.py",
        "return fingerprint == plain + SEARCHED or (", "return (",
        "tests/test_library.py",
    ),
    (
        "a silenced conditioning speaks", "dpo/metadata/comfytext.py",
        'if "ZeroOut" in kind:', "if False:",
        "tests/metadata/test_comfyui.py",
    ),
    (
        "a placeholder is a prompt", "dpo/metadata/a1111.py",
        'prompt = "" if prompt == "unknown" else prompt', "prompt = prompt",
        "tests/metadata/test_a1111.py",
    ),
    (
        "a turned picture keeps its sides", "dpo/metadata/containers.py",
        "reversed(walk.picture) if walk.is_turned else walk.picture", "walk.picture",
        "tests/metadata/test_containers.py",
    ),
]  # fmt: skip
