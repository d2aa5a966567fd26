"""The durable record of every session's beginning and steps."""

from steppo_server.journal.journal import Journal, NullJournal, open_journal
from steppo_server.journal.rows import Journalled, SessionRow, StepExists, StepRow

__all__ = [
    "Journal",
    "Journalled",
    "NullJournal",
    "SessionRow",
    "StepExists",
    "StepRow",
    "open_journal",
]
