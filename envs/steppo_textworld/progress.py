"""TextWorld's intermediate reward: whether a step came nearer to the end of its policy."""

from steppo_textworld.run import Reply

__all__ = ["progress"]


def progress(before: int | None, after: int | None, reply: Reply | None) -> int:
    """Return 1 for a step nearer to winning, -1 for one further away, else 0.

    As `intermediate_reward` of TextWorld 1.7 (textworld/envs/wrappers/tw_inform7.py): winning is 1,
    losing -1, and otherwise it is the sign of what the policy got shorter by. TextWorld fails where
    the game can no longer be won; here that step is -1, and those after it are 0.

    Args:
        before: Length of the policy before the step, or None when there was none.
        after: Its length after the step.
        reply: What the game answered, or None when nothing was played.
    """
    if reply is not None and reply.has_ended:
        return 1 if reply.won else -1
    if before is None:
        return 0
    if after is None:
        return -1
    return (before > after) - (before < after)
