"""Data sets, transforms and the loader that feeds a network."""

from gpucnn.data.catalog import DATASETS, load_dataset
from gpucnn.data.cifar import load_cifar10
from gpucnn.data.dataset import ArrayDataset, Dataset, Subset
from gpucnn.data.draw import Draw
from gpucnn.data.folder import ImageFolder, load_image
from gpucnn.data.idx import read_idx, write_idx
from gpucnn.data.loader import DataLoader
from gpucnn.data.mnist import load_mnist, load_mnist_sample
from gpucnn.data.transforms import Compose, Normalize, RandomHorizontalFlip, RandomShift, Transform

__all__ = [
    "DATASETS",
    "ArrayDataset",
    "Compose",
    "DataLoader",
    "Dataset",
    "Draw",
    "ImageFolder",
    "Normalize",
    "RandomHorizontalFlip",
    "RandomShift",
    "Subset",
    "Transform",
    "load_cifar10",
    "load_dataset",
    "load_image",
    "load_mnist",
    "load_mnist_sample",
    "read_idx",
    "write_idx",
]
