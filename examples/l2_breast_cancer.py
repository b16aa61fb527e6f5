"""Two levels: one strength of L2 regularisation per feature, chosen by the loss on validation samples.

Half of the 60 features are noise, which the strengths find out. `multilevel run l2-breast-cancer` is the same from a
YAML file, with a comparison.
"""

import torch
import torch.nn.functional as F
from torch import nn

from multilevel import CG, Config, Engine, EngineConfig, Problem
from multilevel.problems.recipes import breast_cancer
from multilevel.problems.recipes.regularization import FeatureL2


class Classifier(Problem):  # below: logistic regression
    def training_step(self, batch):
        inputs, labels = batch
        fit = F.binary_cross_entropy_with_logits(self.module(inputs).squeeze(-1), labels)
        return fit + self.regularizer(self.module.weight)  # sum of exp(log_strength) * weight ** 2


class Regularizer(Problem):  # above: the strengths
    def training_step(self, batch):
        inputs, labels = batch
        return F.binary_cross_entropy_with_logits(self.classifier(inputs).squeeze(-1), labels)


def main(train_iters=1000, seed=0):
    torch.manual_seed(seed)
    net, strengths = nn.Linear(60, 1), FeatureL2(60)
    regularizer = Regularizer(
        "regularizer",
        module=strengths,
        optimizer=torch.optim.Adam(strengths.parameters(), lr=0.1),
        train_data_loader=breast_cancer.validation(),
    )
    classifier = Classifier(
        "classifier",
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        train_data_loader=breast_cancer.train(),
        config=Config(type=CG(iterations=30), unroll_steps=20),
    )
    config = EngineConfig(train_iters=train_iters, device="cpu")
    Engine([regularizer, classifier], edges=[(regularizer, classifier)], config=config).run()
    inputs, labels = breast_cancer.held_out()[0]
    accuracy = ((net(inputs).squeeze(-1) > 0) == labels.bool()).float().mean().item()
    measured, noise = strengths.log_strength[:30].mean().item(), strengths.log_strength[30:].mean().item()
    print(f"test accuracy {accuracy:.3f}; mean log strength {measured:.2f} of measurements, {noise:.2f} of noise")
    return accuracy


if __name__ == "__main__":
    main()
