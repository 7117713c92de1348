"""What is run on the model while an adapter is fitted: states, first tokens and answers, kept as stages on disk.

Also the controls beside them: a classifier of the wording alone, and shuffled labels.
"""

from asa_adapter.measurement.baselines import bag_of_words

__all__ = ["bag_of_words"]
