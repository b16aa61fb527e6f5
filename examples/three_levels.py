"""Three levels: how strongly to regularise the weights of noisy training samples (digits, 40 % wrong labels).

low   classifier  minimises its weighted loss on the noisy samples
mid   weights     one weight a sample: makes the classifier right on 50 clean samples, and pays for leaving 1/2
top   price       that payment: makes the classifier right on 50 other clean samples, through the two levels below
"""

import torch
import torch.nn.functional as F
from torch import nn

from multilevel import CG, Config, Engine, EngineConfig, Problem
from multilevel.problems.recipes import digits


class Scores(nn.Module):
    def __init__(self, size, start=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.full((size,), start))


class Classifier(Problem):
    def training_step(self, batch):
        inputs, labels = batch
        losses = F.cross_entropy(self.module(inputs), labels, reduction="none")
        return (self.weights.module.value.sigmoid() * losses).mean() + 1e-3 * self.module.weight.square().sum()


class Weights(Problem):
    def training_step(self, batch):
        inputs, labels = batch
        payment = self.price.module.value.exp() * self.module.value.square().mean()
        return F.cross_entropy(self.classifier(inputs), labels) + payment


class Price(Problem):
    def training_step(self, batch):
        inputs, labels = batch
        return F.cross_entropy(self.classifier(inputs), labels)


def main(train_iters=1500):
    torch.manual_seed(0)
    noisy = digits.noisy_train().dataset
    inputs, labels = digits.clean().dataset.tensors
    net, scores, price = nn.Linear(64, 10), Scores(len(noisy)), Scores(1, start=-2.0)
    low = Classifier("classifier", module=net, optimizer=torch.optim.SGD(net.parameters(), 0.1, momentum=0.9),
                     train_data_loader=[noisy.tensors], config=Config(type=CG(iterations=10), unroll_steps=10))  # fmt: skip
    mid = Weights("weights", module=scores, optimizer=torch.optim.Adam(scores.parameters(), 0.1),
                  train_data_loader=[(inputs[::2], labels[::2])], config=Config(type=CG(iterations=5), unroll_steps=5))  # fmt: skip
    top = Price("price", module=price, optimizer=torch.optim.Adam(price.parameters(), 0.1),
                train_data_loader=[(inputs[1::2], labels[1::2])])  # fmt: skip
    edges = {"u2l": {mid: [low], top: [mid]}, "l2u": {low: [mid, top], mid: [top]}}
    engine = Engine([top, mid, low], edges, config=EngineConfig(train_iters=train_iters))
    import time; t=time.time()
    tx, ty = digits.test()[0]
    while engine.step_count < train_iters:
        engine.step()
        if engine.step_count % 100 == 0:
            with torch.no_grad():
                w=scores.value.sigmoid()
                print(engine.step_count, {k:round(v["loss"].item(),4) for k,v in engine.last_metrics.items()}, "price", price.value.item(), "acc", (net(tx).argmax(1)==ty).float().mean().item(), "w", w[~noisy.corrupted].mean().item(), w[noisy.corrupted].mean().item(), f"{time.time()-t:.1f}",flush=True)


if __name__ == "__main__":
    main()
