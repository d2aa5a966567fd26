"""The contract of step-level MDP environments, and the mathematics on their trajectories."""

from steppo_env.catalogue import Catalogue
from steppo_env.env import AnyEnv, StepEnv
from steppo_env.errors import SteppoError
from steppo_env.mdp import (
    Action,
    Message,
    Observation,
    Outcome,
    Step,
    StopReason,
    Task,
    ToolCall,
    ToolSpec,
    Trajectory,
)
from steppo_env.options import EnvOptions, OperatorOnly
from steppo_env.parsing import parse_message, parse_text
from steppo_env.registry import make, register_with_gymnasium, registered_ids
from steppo_env.tasks import GeneratedTasks, ListedTasks, TaskSet
from steppo_env.tools import Rejection, Tool, ToolArguments, Toolbox

__all__ = [
    "Action",
    "AnyEnv",
    "Catalogue",
    "EnvOptions",
    "GeneratedTasks",
    "ListedTasks",
    "Message",
    "Observation",
    "OperatorOnly",
    "Outcome",
    "Rejection",
    "Step",
    "StepEnv",
    "SteppoError",
    "StopReason",
    "Task",
    "TaskSet",
    "Tool",
    "ToolArguments",
    "ToolCall",
    "ToolSpec",
    "Toolbox",
    "Trajectory",
    "make",
    "parse_message",
    "parse_text",
    "register_with_gymnasium",
    "registered_ids",
]

register_with_gymnasium()
