"""Operations as a page would send them, for tests of what becomes of them."""

from __future__ import annotations

from dpo.groups import Group

CLIENT = "client-a"


def keys(group: Group) -> list[str]:
    return [image.key for image in group.images]


def best_worst(group: Group, number: int = 0, best: int = 0, worst: int = 1, client: str = CLIENT, **more) -> dict:
    shown = keys(group)
    return make("best_worst", number, client, group=group.key, images=shown, result=[shown[best], shown[worst]], **more)


def duel(group: Group, result: str, number: int = 0, left: int = 0, right: int = 1, **more) -> dict:
    shown = [keys(group)[left], keys(group)[right]]
    return make("duel", number, group=group.key, images=shown, result=result, **more)


def triage(group: Group, result: str, number: int = 0, image: int = 0, **more) -> dict:
    return make("triage", number, group=group.key, images=[keys(group)[image]], result=result, **more)


def skip(group: Group, number: int = 0) -> dict:
    return make("skip", number, group=group.key, images=keys(group), result="best_worst")


def review(op: str, group: Group, number: int = 0, chosen: int = 0, rejected: int = 1) -> dict:
    """A drop or a swap."""
    return make(op, number, group=group.key, images=[keys(group)[chosen], keys(group)[rejected]])


def reopen(group: Group, number: int = 0) -> dict:
    return make("reopen", number, group=group.key)


def undo(of: dict, number: int, client: str = CLIENT) -> dict:
    return make("undo", number, client, undoes=[of["client"], of["number"]])


def clearly(of: dict, number: int) -> dict:
    return make("clearly", number, of=[of["client"], of["number"]])


def make(op: str, number: int, client: str = CLIENT, **fields) -> dict:
    return {"client": client, "number": number, "op": op, **fields}
