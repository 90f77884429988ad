"""Transfer learning: what was learnt on the digits 0-4 helps with 5-9, of which only a few are at hand.

A small network learns 0-4 from all of their training images and is saved. Then 5-9 are learnt in forty steps from a
few images each: from scratch; with the saved body held fast under a new head; and with the body learning too, at a
quarter of the head's rate.

python examples/transfer.py
"""

import tempfile
from pathlib import Path

import numpy as np
from tabulate import tabulate

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.data import ArrayDataset, Compose, DataLoader, Normalize, RandomShift, load_mnist_sample

IMAGES_A_DIGIT, SEEDS, STEPS = (5, 20, 80), (0, 1, 2), 40
NORMALIZE = Normalize(mean=(0.13,), std=(0.31,))


def digits(dataset, low, images_a_digit=None):
    """The five digits from `low` on, labelled 0 to 4: all images, or the first so many of each."""
    chosen = [np.flatnonzero(dataset.labels == digit)[:images_a_digit] for digit in range(low, low + 5)]
    rows = np.concatenate(chosen)
    return ArrayDataset(dataset.images[rows], dataset.labels[rows] - low, dataset.classes[low : low + 5])


def network():
    first = [nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential({"body": nn.Sequential(*first, *second), "head": nn.Linear(800, 5)})


def fit(model, optimizer, train, seed, steps=STEPS):
    batches = DataLoader(train, 32, shuffle=True, seed=seed, transform=Compose([RandomShift(2), NORMALIZE]))
    schedule = gpucnn.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    while schedule.last_step < steps:
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
            if schedule.last_step == steps:
                break


def error(model, test):
    model.eval()
    with gpucnn.no_grad():
        wrong = sum(int((model(x).argmax(1) != y).sum()) for x, y in DataLoader(test, 250, transform=NORMALIZE))
    return 100 * wrong / len(test)


def from_scratch(weights):
    model = network()
    return model, gpucnn.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


def new_head(weights):
    model = network()
    model.load_state_dict(gpucnn.load(weights))
    model.freeze()
    model.head = nn.Linear(800, 5)
    return model, gpucnn.optim.SGD(model.head.parameters(), lr=0.02, momentum=0.9)


def whole_network(weights):
    model = network()
    model.load_state_dict(gpucnn.load(weights))
    model.head = nn.Linear(800, 5)
    groups = [{"params": model.body.parameters(), "lr": 0.005}, {"params": model.head.parameters()}]
    return model, gpucnn.optim.SGD(groups, lr=0.02, momentum=0.9)


if __name__ == "__main__":
    train, test = load_mnist_sample()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "digits-0-4.safetensors"
        gpucnn.manual_seed(0)
        teacher, optimizer = from_scratch(None)
        fit(teacher, optimizer, digits(train, 0), seed=0, steps=800)
        gpucnn.save(teacher.state_dict(), weights)
        print(f"0-4: {error(teacher, digits(test, 0)):.1f} % of the test images wrong\n")
        rows = []
        for count in IMAGES_A_DIGIT:
            row = [count]
            for start in (from_scratch, new_head, whole_network):
                errors = []
                for seed in SEEDS:
                    gpucnn.manual_seed(seed)
                    model, optimizer = start(weights)
                    fit(model, optimizer, digits(train, 5, count), seed)
                    errors.append(error(model, digits(test, 5)))
                row.append(f"{np.mean(errors):.1f}")
            rows.append(row)
        print(f"5-9 in {STEPS} steps: % of the test images wrong, mean of {len(SEEDS)} seeds")
        print(tabulate(rows, ["images a digit", "from scratch", "new head", "whole network"], disable_numparse=True))
