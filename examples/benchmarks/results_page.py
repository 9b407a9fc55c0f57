"""The page of results: the summary, what it means, and links to all runs."""

import json
from pathlib import Path

from averages import mean_metrics
from overview import details_table, summary_table
from run_pages import KINDS, page_head, paths_of
from stored_runs import title_of

__all__ = ["results_page"]

HEAD = """# Results

How well the detectors separate known from unknown points, next to baselines on the
same rows. They are ahead of every baseline on intents of BANKING77, on messages about
other things, on embeddings of CIFAR-10, on tables on average, on digits, and on
photographs against digits and noise. They are equal or behind on intents of CLINC150,
on embeddings of CIFAR-100, and on photographs against other photographs. There use a
linear classifier, or a softmax net with a score such as GEN, ODIN or fDBD
([limitations](not_for.md)).

Each cell is AUROC / TNR at 95 % TPR, of which 1 is best ([what they
mean](#how-to-read-the-tables)). The best AUROC and the best TNR of a row are bold. The
name of the known data links to the run.
"""

DETAILS = """
No column is the method of the paper. [How it works](method.md#gains-over-the-paper)
compares its score with ours on the same nets, and [Ablations](results_ablations.md)
have every part and loss.

## Details of the runs

{}
"""

TAIL = """
## How to read the tables

- **AUROC** is the chance that a known point scores higher than an unknown one. 0.5 is
  chance.
- **TNR at 95 % TPR** is the share of unknown points that are rejected if 95 % of the
  known ones are accepted. Its threshold is set on the known test points, for all
  methods alike.
- **VMDLSDetector** is the detector with its default evidence. On embeddings it trains
  no net, and gives the same scores as `VMDLSbDetector`, which was run.
- **Largest probability** is an ordinary classifier with a threshold on its largest
  class probability: a softmax net on images, a random forest on tables, a logistic
  regression on embeddings. **Nearest neighbours** is the distance to training points,
  on images in the features of the softmax net.
- **Best baseline** is the best of its row and measure: of 14 on images (pytorch-ood's,
  on one softmax net), 6 on tables (scikit-learn's models at their defaults) and up to
  9 on embeddings. It is picked by the result on the test set, which favours the
  baselines. Nobody knows in advance which one it will be.
- **Training rows** and **epochs** are those of the run. The nets for photographs are
  small on purpose: they train on two cores. With all 50,000 images of CIFAR-10 the
  accuracy is {} ([run](results_photographs.md#all-cifar10-cpu), without baselines).
  Empty: the runs on embeddings have the number of rows in their names.
- **Repetitions** are seeds, splits or draws of rows. **Standard error** is that of our
  AUROC over them. It is empty where only the mean is stored, and where there is one.
- **Best on** counts the tasks, tables or unknown sets of the row on which our AUROC is
  the highest of all methods.
- **Accuracy** is the share of known test points that get the right label when nothing
  is rejected (`predict_known`). The next column has that of the classifier in "largest
  probability".
- **Known rejected** and **unknown rejected** are the shares that `predict` rejects at
  `contamination=0.05`. Empty: not stored.

Each number is the mean over the tasks, tables or unknown sets of its row, and over the
repetitions. For tables these are nine public tables, of which a third of the classes is
unknown.

## How it was measured

On images the softmax net of the baselines is trained in the same run, on the same
rows, with the same backbone, optimizer, schedule, batch size, augmentation, epochs
and precision. Except for TNR, every threshold is a conformal quantile of scores of
held-out or cross-fitted known points.

Settings were chosen by leaving known classes out of training data ([how the defaults
were chosen](recipe.md)), not by the results here. There are two exceptions. A result of
CIFAR-10 against MNIST was the reason to search for another rule for the early parts
([what happened](recipe.md#one-part-against-all-others)). The part `texture` is aimed at
uniform noise, which is one of the test sets.
{}
## All runs
"""

OLDER = """
**Defaults**: "older" marks runs with fewer parameters than the detector has now, so
that their defaults are not those of today. Older runs on images have neither the part
`texture` nor `boundary`, and choose their optimizer and rates by hand. Older runs on
tables have no parts without a net.
"""


def results_page(folder: Path) -> str:
    """Summarize the stored experiments in one table, with links to the runs.

    Parameters
    ----------
    folder : Path
        With the JSON files.

    Returns
    -------
    page : str

    Examples
    --------
    >>> import tempfile
    >>> results_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# Results'
    """
    links = []
    for page in KINDS:
        links += [f"- [{page_head(page)[2:]}]({page})"]
        for path in paths_of(folder, page):
            title = title_of(path, json.loads(path.read_text()))
            links.append(f"  - [`{path.stem}`]({page}#{path.stem}): {title}")
    links.append(
        "- [Measured guarantees](results_guarantees.md): coverage of thresholds"
    )
    details = details_table(folder)
    older = OLDER if any("older" in line for line in details) else ""
    largest = folder / "all-cifar10-cpu.json"
    accuracy = "not stored"
    if largest.exists():
        found = mean_metrics(json.loads(largest.read_text()), ())
        accuracy = f"{found['VMDLS']['accuracy']:.3f}"
    made = "Pages and tables are made by `python examples/benchmarks report`."
    middle = DETAILS.format("\n".join(details))
    tail = TAIL.format(accuracy, older)
    return "\n".join(
        [HEAD, *summary_table(folder), middle + tail, *links, "", made, ""]
    )
