"""The client side: environments in process or over HTTP, policies, the sampler, reports."""

from steppo_client.chat_policy import ChatPolicy, ChatSettings
from steppo_client.env_client import EnvClient, SessionStart, SessionState, StepTaken
from steppo_client.http_client import HttpEnvClient
from steppo_client.local_client import LocalEnvClient
from steppo_client.policy import ExpertPolicy, HumanPolicy, Policy, RandomPolicy, Sample, Turn
from steppo_client.sampler import Sampler, SamplerConfig
from steppo_client.servers import client_of
from steppo_client.stream_client import StreamEnvClient
from steppo_client.task_refs import TaskRef, list_task_refs

__all__ = [
    "ChatPolicy",
    "ChatSettings",
    "EnvClient",
    "ExpertPolicy",
    "HttpEnvClient",
    "HumanPolicy",
    "LocalEnvClient",
    "Policy",
    "RandomPolicy",
    "Sample",
    "Sampler",
    "SamplerConfig",
    "SessionStart",
    "SessionState",
    "StepTaken",
    "StreamEnvClient",
    "TaskRef",
    "Turn",
    "client_of",
    "list_task_refs",
]
