"""
A table with categories and gaps
================================

Train on rows of a table. Two of three kinds of wine are known. The third kind, and rows
with a broken sensor, should be rejected.

You can run this page as a script. It takes a few seconds::

    python examples/table.py
"""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_wine
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skvmdls import VMDLSbDetector
from skvmdls.plotting import ScoreHistogramDisplay

# %%
# A table as you may have it
# --------------------------
# Wine has thirteen measurements. To make it more like a table from practice, one column
# becomes a category, and 3 % of the other cells are missing.

wine = load_wine(as_frame=True)
table, kinds = wine.data.copy(), wine.target_names[wine.target]
rng = np.random.default_rng(0)
missing = rng.random(table.shape) < 0.03
missing[:, table.columns.get_loc("color_intensity")] = False
table = table.mask(missing)
names = ["pale", "medium", "dark"]
table["color"] = pd.qcut(table.pop("color_intensity"), 3, labels=names).astype(str)
print(table.iloc[:3, -4:])

# %%
# Known and unknown rows
# ----------------------
# ``class_0`` and ``class_1`` are known. ``class_2`` is only in the test set.

known = np.isin(kinds, ["class_0", "class_1"])
X_train, X_known, y_train, y_known = train_test_split(
    table[known], kinds[known], stratify=kinds[known], random_state=0
)
X_test = pd.concat([X_known, table[~known]])
y_test = np.concatenate([y_known, kinds[~known]])

# %%
# Fit a pipeline
# --------------
# scikit-learn turns categories and gaps into numbers. The detector standardises the
# columns itself. Up to 2,000 rows no net is trained, and all rows set the threshold.

numbers = make_column_selector(dtype_include=float)
words = make_column_selector(dtype_exclude=float)
pipeline = make_pipeline(
    make_column_transformer(
        (SimpleImputer(strategy="median"), numbers),
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), words),
    ),
    VMDLSbDetector(contamination=0.1, random_state=0),
)
pipeline.fit(X_train, y_train)

labels = pipeline.predict(X_test)
print(pd.crosstab(y_test, labels, rownames=["kind"], colnames=["predicted"]))

# %%
# The label for unknown rows is ``"-1"``, because the other labels are strings.

_ = ScoreHistogramDisplay.from_estimator(pipeline, X_test, y_test)

# %%
# A broken sensor
# ---------------
# One row of a known kind gets a magnesium with a digit too many. ``explain`` names the
# column. It takes the columns after the transformation, so take the two steps one by
# one.

transform, detector = pipeline[:-1], pipeline[-1]
broken = X_known.iloc[[0]].copy()
broken["magnesium"] *= 10
print("before:", pipeline.predict(X_known.iloc[[0]]))
print("broken:", pipeline.predict(broken))

columns = transform.get_feature_names_out()
contributions = detector.explain(transform.transform(broken)).contributions[0]
for column in contributions.argsort()[:3]:
    print(f"{columns[column]:30} {contributions[column]:8.1f}")
