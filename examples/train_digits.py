"""A network of one's own on real digits, in twenty lines.

python examples/train_digits.py
"""

import gpucnn
from gpucnn import functional as F
from gpucnn import nn
from gpucnn.data import Compose, DataLoader, Normalize, RandomShift, load_mnist_sample

gpucnn.manual_seed(0)
train, test = load_mnist_sample()
normalize = Normalize(mean=(0.13,), std=(0.31,))
batches = DataLoader(train, 64, shuffle=True, transform=Compose([RandomShift(2), normalize]))
layers = [nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 5 * 5, 10))
optimizer = gpucnn.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
for _ in range(3):
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
with gpucnn.no_grad():
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in DataLoader(test, 250, transform=normalize))
print(f"{right} of {len(test)} digits right")
