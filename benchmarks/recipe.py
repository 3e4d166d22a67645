"""What is measured against others: softspoken's defaults, with the reward that they come to. Where TRL is to be alike, it gets
them too."""

from softspoken.config import TrainConfig
from softspoken.tasks.task import load_task, reward_of

RECIPE = TrainConfig(reward=reward_of(load_task(TrainConfig.task), None))
