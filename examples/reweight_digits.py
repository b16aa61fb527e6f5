"""Two levels: what each training sample should count, when 40 % of the training labels are wrong (Meta-Weight-Net).

The classes of `multilevel.problems.recipes.reweighting`, written out; `multilevel run reweight-digits` is the same from
a YAML file, with a report and a picture.
"""

import torch
import torch.nn.functional as F
from torch import nn

from multilevel import Config, Engine, EngineConfig, Problem
from multilevel.problems.recipes import digits


class Classifier(Problem):  # below: trained on the noisy samples, each times its weight
    def training_step(self, batch):
        inputs, labels = batch
        losses = F.cross_entropy(self.module(inputs), labels, reduction="none")
        return (self.reweight(losses.detach().unsqueeze(-1)).squeeze(-1) * losses).mean()


class Reweight(Problem):  # above: maps a loss to a weight, so that the classifier is right on clean samples
    def training_step(self, batch):
        inputs, labels = batch
        return F.cross_entropy(self.classifier(inputs), labels)


class Digits(Engine):
    def validation(self):
        inputs, labels = digits.held_out()[0]
        return {"test accuracy": (self["classifier"](inputs).argmax(dim=-1) == labels).float().mean().item()}


def main(train_iters=2000, seed=0):
    torch.manual_seed(seed)
    weight_net = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    reweight = Reweight(
        "reweight",
        module=weight_net,
        optimizer=torch.optim.Adam(weight_net.parameters(), lr=0.003),
        train_data_loader=digits.clean(),
    )
    classifier = Classifier(
        "classifier",
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9),
        train_data_loader=digits.noisy_train(flip=0.4),
        config=Config(type="identity", unroll_steps=2, warmup_steps=200),  # not darts: the loss is detached
    )
    config = EngineConfig(train_iters=train_iters, valid_step=500, device="cpu")
    engine = Digits([reweight, classifier], edges=[(reweight, classifier)], config=config)
    engine.run()
    print(f"test accuracy {engine.last_validation['test accuracy']:.3f}")
    return engine.last_validation["test accuracy"]


if __name__ == "__main__":
    main()
