"""
Why was it rejected?
====================

Two detectors, of a table and of images, and points with something wrong in them: a
sensor that slipped a digit, a spot of dirt. ``explain`` names the column and the place.

    python examples/why_rejected.py
"""

import numpy as np
from sklearn.datasets import load_wine

from skvmdls import VMDLSDetector
from skvmdls.datasets import load_digits
from skvmdls.plotting import ExplanationDisplay

# %%
# A column of a table
# -------------------
# Thirteen measurements of each of 178 wines. In one of them the magnesium has a digit
# too many. (Of so few rows a fifth is held out to set the threshold, and one in ten may
# be rejected: at 0.05 the strangest of 27 held-out wines alone would set it.)

wine = load_wine(as_frame=True)
of_wines = VMDLSDetector(contamination=0.1, calibration_fraction=0.2, random_state=0)
of_wines.fit(wine.data, wine.target)

broken = wine.data.iloc[[0, 0]].copy()
broken.iloc[1, broken.columns.get_loc("magnesium")] *= 10
print("answers:", of_wines.predict(broken))

# %%
# The contributions of the columns add up to what the row itself says. The one that is
# wrong weighs more than all others together.

contributions = of_wines.explain(broken).contributions
for column in contributions[1].argsort()[:3]:
    print(f"{wine.data.columns[column]:20} {contributions[1, column]:10.1f}")

ExplanationDisplay.from_estimator(of_wines, broken)

# %%
# A place of an image
# -------------------
# A digit as it came, and the same one with a spot.

digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
of_digits = VMDLSDetector(random_state=0).fit(digits.X_train, digits.y_train)

margins = of_digits.decision_function(digits.X_test)
clean = digits.X_test[margins.argmax()]
spotted = clean.copy()
spotted[0:3, 0:3] = 16
print("answers:", of_digits.predict(np.stack([clean, spotted])))

# %%
# The map is the distance of each place from what images of the nearest class look like.

ExplanationDisplay.from_estimator(of_digits, np.stack([clean, spotted]))

# %%
# A digit that was never learned
# ------------------------------
# Nothing is wrong with these, except that they are of no class that there is. Most
# parts of the evidence are outside their usual range, not one.

never_learned = [np.flatnonzero(digits.y_test == digit)[0] for digit in (6, 7, 8, 9)]
ExplanationDisplay.from_estimator(of_digits, digits.X_test[never_learned])
