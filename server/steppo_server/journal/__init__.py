"""The durable record of every session's beginning and steps."""

from steppo_server.journal.journal import Journal, open_journal
from steppo_server.journal.rows import Journalled, SessionRow, StepExists, StepRow

__all__ = [
    "Journal",
    "Journalled",
    "SessionRow",
    "StepExists",
    "StepRow",
    "open_journal",
]
