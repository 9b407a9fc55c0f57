"""
Why was it rejected?
====================

``explain`` names the column of a table, or the place of an image, that made a point
unusual. Here a sensor in a table has slipped by one digit, and an image has a spot of
dirt.

You can run this page as a script. It takes half a minute on one processor core::

    python examples/why_rejected.py
"""

import numpy as np
from sklearn.datasets import load_wine
from sklearn.utils import shuffle

from skvmdls import VMDLSDetector
from skvmdls.datasets import load_digits
from skvmdls.plotting import ExplanationDisplay

# %%
# A column of a table
# -------------------
# The table has thirteen measurements of 178 wines. In one row the magnesium has a digit
# too many. The order of the rows has no meaning, so they are shuffled.

wine = load_wine(as_frame=True)
X, y = shuffle(wine.data, wine.target, random_state=0)
of_wines = VMDLSDetector(contamination=0.1, random_state=0)
of_wines.fit(X, y)

broken = wine.data.iloc[[0, 0]].copy()
broken.iloc[1, broken.columns.get_loc("magnesium")] *= 10
print("predicted:", of_wines.predict(broken))

# %%
# Each column has a contribution to the score of the row. The wrong one weighs more than
# all others together.

contributions = of_wines.explain(broken).contributions
for column in contributions[1].argsort()[:3]:
    print(f"{wine.data.columns[column]:20} {contributions[1, column]:10.1f}")

ExplanationDisplay.from_estimator(of_wines, broken)

# %%
# A place of an image
# -------------------
# The second image is the first one with a spot.

digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
of_digits = VMDLSDetector(random_state=0).fit(digits.X_train, digits.y_train)

margins = of_digits.decision_function(digits.X_test)
clean = digits.X_test[margins.argmax()]
spotted = clean.copy()
spotted[0:3, 0:3] = 16
print("predicted:", of_digits.predict(np.stack([clean, spotted])))

# %%
# The map shows how far each place is from images of the nearest class.

ExplanationDisplay.from_estimator(of_digits, np.stack([clean, spotted]))

# %%
# Unknown digits
# --------------
# These images have no fault, but their digits were not in the training set. Most parts
# of the evidence are outside their usual range, and not only one.

unknown = [np.flatnonzero(digits.y_test == digit)[0] for digit in (6, 7, 8, 9)]
_ = ExplanationDisplay.from_estimator(of_digits, digits.X_test[unknown])
