"""The paper's experiments as commands: ``python -m skvmdls.benchmarks NAME``.

Every command writes a JSON file with each number, its settings, versions and hardware;
``report`` makes the pages in ``docs/`` from these files. The detectors run beside live
peers of pytorch-ood on one softmax net, trained on the same rows with the same
backbone, augmentation, epochs and precision. Needs the extra ``bench``.
"""
