"""Three levels: strengths of L2 by feature that may not differ more than other samples confirm.

    prior        top     the price of differing:           loss on 125 validation samples
    strengths    middle  one strength of L2 a feature:     loss on 125 others, plus the price times their variance
    classifier   low     logistic regression:              loss on 100 training samples, plus the L2 penalty

Without the top, the middle fits 60 strengths to its own samples. The top's gradient goes through both levels below.
"""

import torch
from torch import nn

from multilevel import CG, MINRES, Config, Engine, EngineConfig, Problem
from multilevel.problems.recipes import breast_cancer
from multilevel.problems.recipes.regularization import FeatureL2, binary_loss


class Classifier(Problem):
    def training_step(self, batch):
        return binary_loss(self.module, batch) + self.strengths(self.module.weight)


class Strengths(Problem):
    def training_step(self, batch):
        return binary_loss(self.classifier, batch) + self.prior.module[0].exp() * self.module.log_strength.var()


class Prior(Problem):
    def training_step(self, batch):
        return binary_loss(self.classifier, batch)


def hierarchy(train_iters, seed):
    torch.manual_seed(seed)
    inputs, labels = breast_cancer.validation()[0]
    net, l2, price = nn.Linear(60, 1), FeatureL2(60), nn.ParameterList([torch.zeros(1)])
    sgd, adam = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), torch.optim.Adam(l2.parameters(), lr=0.1)
    # MINRES: the middle's Hessian may be indefinite on the way.
    low, middle = (Config(type=m, unroll_steps=10) for m in (CG(iterations=10), MINRES(iterations=5)))
    train, tune, confirm = breast_cancer.train(), [(inputs[:125], labels[:125])], [(inputs[125:], labels[125:])]
    classifier = Classifier("classifier", module=net, optimizer=sgd, train_data_loader=train, config=low)
    strengths = Strengths("strengths", module=l2, optimizer=adam, train_data_loader=tune, config=middle)
    adam = torch.optim.Adam(price.parameters(), lr=0.2)
    prior = Prior("prior", module=price, optimizer=adam, train_data_loader=confirm)
    # u2l: whose parameters enter a lower's loss; l2u: whose solution enters an upper's.
    down, up = {prior: [strengths], strengths: [classifier]}, {classifier: [strengths, prior], strengths: [prior]}
    edges = {"u2l": down, "l2u": up}
    return Engine([prior, strengths, classifier], edges, config=EngineConfig(train_iters=train_iters, device="cpu"))


def main(train_iters=3000, seed=0):
    (engine := hierarchy(train_iters, seed)).run()
    loss = binary_loss(engine["classifier"].module, breast_cancer.held_out()[0]).item()
    print(f"price {engine['prior'].module[0].exp().item():.3g}, test loss {loss:.3f}")
    return loss


if __name__ == "__main__":
    main()
