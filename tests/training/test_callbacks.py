"""Callbacks of scikit-learn 1.9: what they are told of a fit, and no more."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import skvmdls
from shared import TABLE_SETTINGS, blobs
from skvmdls import VMDLSbDetector, VMDLSDetector

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")


def quick(detector, **parameters):
    return detector(**TABLE_SETTINGS | parameters)


class Notebook:
    """Writes down what it is told: event, task, and how deep in the tree."""

    def __init__(self, answer=None):
        self.told, self.answer = [], answer

    def _note(self, event, context):
        depth, above = 0, context.parent
        while above is not None:
            depth, above = depth + 1, above.parent
        self.told.append((event, context.task_name, depth, context.max_subtasks))

    def setup(self, estimator, context):
        self._note("setup", context)

    def teardown(self, estimator, context):
        self._note("teardown", context)

    def on_fit_task_begin(self, estimator, context):
        self._note("begin", context)

    def on_fit_task_end(self, estimator, context):
        self._note("end", context)
        return self.answer


def of_net(name, n_epochs):
    epoch = [("begin", "epoch", 2, 0), ("end", "epoch", 2, 0)]
    return [
        ("begin", name, 1, n_epochs),
        *(epoch * n_epochs),
        ("end", name, 1, n_epochs),
    ]


def of_fit(nets, n_nets):
    around = ("fit", 0, n_nets)
    begun = [("setup", *around), ("begin", *around)]
    return [*begun, *nets, ("end", *around), ("teardown", *around)]


def test_callbacks_are_told_of_each_net_and_epoch():
    X, y = blobs(3, 40)
    notebook = Notebook()
    quick(VMDLSDetector, max_epochs=3, autoencoder_epochs=2).set_callbacks(
        notebook
    ).fit(X, y)
    nets = of_net("network", 3) + of_net("autoencoder", 2)
    assert notebook.told == of_fit(nets, 2)


@pytest.mark.parametrize("answer", [None, True])
def test_callbacks_change_nothing_and_stop_nothing(answer):
    """The learning rate is scheduled for all epochs: a net cut short is another."""
    X, y = blobs(3, 40)
    notebook = Notebook(answer)
    told = quick(VMDLSbDetector, max_epochs=3).set_callbacks(notebook).fit(X, y)
    alone = quick(VMDLSbDetector, max_epochs=3).fit(X, y)
    np.testing.assert_array_equal(told.score_samples(X), alone.score_samples(X))
    assert notebook.told == of_fit(of_net("network", 3), 1)
    assert vars(told).keys() - vars(alone).keys() == {"_skl_callbacks"}


def test_a_net_that_memory_recalls_has_no_epochs(tmp_path):
    X, y = blobs(3, 40)
    detector = quick(VMDLSbDetector, max_epochs=3, memory=str(tmp_path)).fit(X, y)
    notebook = Notebook()
    detector.set_callbacks(notebook).fit(X, y)
    assert notebook.told == of_fit([], 1)


def test_a_training_that_goes_on_tells_of_the_epochs_that_are_left(tmp_path):
    X, y = blobs(3, 40)
    made = {"max_epochs": 4, "checkpoint": str(tmp_path / "fit")}
    stopper = Notebook()

    def stop(estimator, context):
        stopper._note("end", context)
        if sum(event == "end" for event, *_ in stopper.told) == 3:
            raise KeyboardInterrupt

    stopper.on_fit_task_end = stop
    with pytest.raises(KeyboardInterrupt, match="up to network, epoch 3"):
        quick(VMDLSbDetector, **made).set_callbacks(stopper).fit(X, y)
    assert stopper.told[-1][0] == "teardown"
    notebook = Notebook()
    quick(VMDLSbDetector, **made).set_callbacks(notebook).fit(X, y)
    assert sum(task[1] == "epoch" for task in notebook.told) == 2
    assert ("begin", "network", 1, 4) in notebook.told


def test_a_failed_fit_tears_down_and_keeps_what_was_learned():
    X, y = blobs(3, 40)
    notebook = Notebook()
    detector = quick(VMDLSbDetector).fit(X, y).set_callbacks(notebook)
    before = detector.score_samples(X)
    with pytest.raises(ValueError, match="NaN"):
        detector.fit(np.full_like(X, np.nan), y)
    assert notebook.told[-1][0] == "teardown"
    np.testing.assert_array_equal(detector.score_samples(X), before)
    assert not any(name.startswith("_callback") for name in vars(detector))


def test_a_search_hands_its_callbacks_on_without_a_warning(recwarn):
    X, y = blobs(3, 40)
    notebook = Notebook()
    notebook.max_propagation_depth = None
    search = GridSearchCV(
        quick(VMDLSbDetector, max_epochs=2), {"latent_dim": [2, 3]}, cv=2
    )
    search.set_callbacks(notebook).fit(X, y)
    assert not [w for w in recwarn if "callback" in str(w.message)]
    assert sum(event == "end" and task == "epoch" for event, task, *_ in notebook.told)
    fits = [told for told in notebook.told if told[:2] == ("begin", "network")]
    assert len(fits) == 5
    assert sum(event == "teardown" for event, *_ in notebook.told) == 1


def test_a_monitor_scores_the_fitted_detector():
    X, y = blobs(3, 40)
    scoring = {"f1": lambda fitted, X, y: fitted.score(X, y)}
    monitor = callback.ScoringMonitor(scoring=scoring)
    detector = quick(VMDLSbDetector).set_callbacks(monitor).fit(X, y)
    (log,) = monitor.get_logs().data
    assert log["task_name"] == "fit"
    assert log["f1"] == detector.score(X, y)


def test_a_detector_with_callbacks_is_cloned_pickled_and_saved(tmp_path):
    X, y = blobs(3, 40)
    detector = quick(VMDLSbDetector).set_callbacks(Notebook()).fit(X, y)
    skvmdls.save(detector, tmp_path / "file")
    pickled = pickle.loads(pickle.dumps(detector))
    for copy in (pickled, skvmdls.load(tmp_path / "file"), clone(detector).fit(X, y)):
        np.testing.assert_array_equal(copy.score_samples(X), detector.score_samples(X))
