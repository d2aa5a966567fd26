"""The words of KeyDoor. They are few on purpose: a tiny model learns them from scratch."""

__all__ = ["SYSTEM", "render_state"]

SYSTEM = (
    "You walk on a grid. Row 0 is in the north, column 0 in the west. Fetch the key, then go to the "
    "door. Think briefly, then give one command:\n"
    "<think> key is north </think> <act> go north </act>\n"
    "The commands are go north, go south, go west and go east."
)


def render_state(
    agent: tuple[int, int], key: tuple[int, int] | None, door: tuple[int, int], turns_left: int
) -> str:
    """Return the whole state as one line of simple words.

    Args:
        key: Where the key lies, or None when it is in hand.
    """
    if key is None:
        where, holding = "key in hand .", "you hold the key ."
    else:
        where, holding = f"key at r{key[0]} c{key[1]} .", "you hold nothing ."
    return (
        f"you are at r{agent[0]} c{agent[1]} . {where} door at r{door[0]} c{door[1]} . "
        f"{holding} turns left {turns_left} . move :"
    )
