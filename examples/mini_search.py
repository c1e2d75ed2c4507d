"""Neural architecture search in a hundred lines, without archsmith: the whole idea, to be read before the library.

A controller (an LSTM) writes a small convolutional network as a sequence of choices, the network is trained for a few
epochs on scikit-learn's digits, and REINFORCE teaches the controller with the validation accuracy, cubed
(Zoph and Le 2017, "Neural Architecture Search with Reinforcement Learning"). Run it: python examples/mini_search.py
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

CHOICES = {"kernel": (1, 3, 5), "filters": (8, 16, 24, 32)}  # one of each for every layer


class Controller(nn.Module):
    """An LSTM that emits one choice at a time and is fed what it chose."""

    def __init__(self, layers, hidden=35):
        super().__init__()
        self.kinds = [kind for _ in range(layers) for kind in CHOICES]
        self.cell = nn.LSTMCell(hidden, hidden)
        self.heads = nn.ModuleDict({kind: nn.Linear(hidden, len(options)) for kind, options in CHOICES.items()})
        self.embed = nn.ModuleDict({kind: nn.Embedding(len(options), hidden) for kind, options in CHOICES.items()})
        self.start = nn.Parameter(torch.zeros(1, hidden))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.08, 0.08)

    def sample(self):
        """One sequence of choices, and its log-probability with a gradient."""
        x, state, answers, log_probability = self.start, None, [], 0.0
        for kind in self.kinds:
            state = self.cell(x, state)
            distribution = torch.distributions.Categorical(logits=self.heads[kind](state[0]))
            answer = distribution.sample()
            log_probability = log_probability + distribution.log_prob(answer).sum()
            answers.append(CHOICES[kind][answer.item()])
            x = self.embed[kind](answer)
        return answers, log_probability


def build(answers):
    """The network that the choices describe."""
    modules, channels = [], 1
    for kernel, filters in zip(answers[::2], answers[1::2], strict=True):
        modules += [
            nn.Conv2d(channels, filters, kernel, padding="same", bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
        ]
        channels = filters
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def train(model, data, epochs):
    """Train it; the highest validation accuracy of the last five epochs."""
    x, y, x_valid, y_valid = data
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    accuracies = []
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            accuracies.append((model(x_valid).argmax(1) == y_valid).float().mean().item())
    return max(accuracies[-5:])


def search(trials, epochs, layers, seed, learning_rate=6e-3):
    """Propose, train, reward, learn. A larger learning rate than the paper's 6e-4, since the run is so short."""
    torch.manual_seed(seed)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))  # a fifth is never looked at here: it would be the test set
    fit, valid = order[: len(order) * 7 // 10], order[len(order) * 7 // 10 : len(order) * 8 // 10]
    data = images[fit], labels[fit], images[valid], labels[valid]

    controller = Controller(layers)
    optimizer = torch.optim.Adam(controller.parameters(), lr=learning_rate)
    baseline, best = None, (0.0, None)
    for trial in range(trials):
        answers, log_probability = controller.sample()
        accuracy = train(build(answers), data, epochs)
        reward = accuracy**3
        baseline = reward if baseline is None else baseline
        optimizer.zero_grad()
        (-log_probability * (reward - baseline)).backward()
        optimizer.step()
        baseline = 0.95 * baseline + 0.05 * reward
        best = max(best, (accuracy, answers))
        print(f"trial {trial}: accuracy {accuracy:.3f}, best {best[0]:.3f} with {best[1]}", flush=True)
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="two trials of one epoch, to see that it runs")
    tiny = parser.parse_args().tiny
    search(trials=2 if tiny else 20, epochs=1 if tiny else 8, layers=3, seed=0)
