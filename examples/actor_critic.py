"""Actor-critic on CartPole as a bilevel problem: the critic below answers the policy of the actor above.

The actor's choices are made in the environment, where nothing can be differentiated: its gradient is that of the score
function. The engine seeds the environment, logs the returns of its episodes, and closes it at the end.
"""

import torch
from torch import nn

from multilevel import Config, Engine, EngineConfig
from multilevel.problems.recipes.actor_critic import Actor, Critic
from multilevel.problems.recipes.rollouts import environments


def net(outputs):
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, outputs))


def main(rollouts=400, seed=0):
    torch.manual_seed(seed)
    policy, values = net(outputs=2), net(outputs=1)
    critic = Critic("critic", module=values, optimizer=torch.optim.Adam(values.parameters(), 0.003),
                    config=Config(type="identity", unroll_steps=5))  # fmt: skip
    actor = Actor("actor", module=policy, optimizer=torch.optim.Adam(policy.parameters(), 0.005),
                  config=Config(estimator="score", gradient_clipping=0.5))  # fmt: skip
    engine = Engine([actor, critic], edges=[(actor, critic)], env=environments("CartPole-v1", 32),
                    config=EngineConfig(train_iters=5 * rollouts, seed=seed))  # fmt: skip
    engine.run()
    engine.close()
    episodes = engine.last_metrics["critic"]
    print(f"mean return of the last 100 of {episodes['episodes']:.0f} episodes: {episodes['episode return']:.1f}")
    return episodes["episode return"].item()


if __name__ == "__main__":
    main()
