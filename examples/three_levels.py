"""Three levels: strengths of L2 by feature that may not differ more than other samples confirm.

    prior        top     the price of differing:           loss on 125 validation samples
    strengths    middle  one strength of L2 a feature:     loss on 125 others, plus the price times their variance
    classifier   low     logistic regression:              loss on 100 training samples, plus the L2 penalty

Without the top the middle fits 60 strengths to its samples and the test loss suffers. The top's gradient goes through
both levels below: a price moves the strengths, and those move the classifier.
"""

import torch
from torch import nn

from multilevel import CG, MINRES, Config, Engine, EngineConfig, Problem
from multilevel.problems.recipes import breast_cancer
from multilevel.problems.recipes.regularization import FeatureL2, binary_loss


class Price(nn.Module):
    def __init__(self):
        super().__init__()
        self.log = nn.Parameter(torch.zeros(1))


class Classifier(Problem):
    def training_step(self, batch):
        return binary_loss(self.module, batch) + self.strengths(self.module.weight)


class Strengths(Problem):
    def training_step(self, batch):
        return binary_loss(self.classifier, batch) + self.prior.module.log.exp() * self.module.log_strength.var()


class Prior(Problem):
    def training_step(self, batch):
        return binary_loss(self.classifier, batch)


def main(train_iters=3000, seed=0):
    torch.manual_seed(seed)
    train, [(inputs, labels)], test = breast_cancer.train(), breast_cancer.validation(), breast_cancer.test()
    net, l2, price = nn.Linear(60, 1), FeatureL2(60), Price()
    classifier = Classifier("classifier", module=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
                            train_data_loader=train, config=Config(type=CG(iterations=10), unroll_steps=10))  # fmt: skip
    # minres: far from its solution the middle's Hessian has negative eigenvalues.
    strengths = Strengths("strengths", module=l2, optimizer=torch.optim.Adam(l2.parameters(), lr=0.1),
                          train_data_loader=[(inputs[:125], labels[:125])],
                          config=Config(type=MINRES(iterations=5), unroll_steps=10))  # fmt: skip
    prior = Prior("prior", module=price, optimizer=torch.optim.Adam(price.parameters(), lr=0.2),
                  train_data_loader=[(inputs[125:], labels[125:])])  # fmt: skip
    down = {prior: [strengths], strengths: [classifier]}
    up = {classifier: [strengths, prior], strengths: [prior]}
    engine = Engine([prior, strengths, classifier], {"u2l": down, "l2u": up}, config=EngineConfig(train_iters=train_iters))
    engine.run()
    loss = binary_loss(net, test[0]).item()
    print(f"price {price.log.exp().item():.3g}, test loss {loss:.3f}")
    return loss


if __name__ == "__main__":
    main()
