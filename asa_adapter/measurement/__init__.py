"""What is run on the model while an adapter is fitted: states, first tokens and answers, kept as stages on disk.

Also a control beside them: a classifier of the wording alone.
"""

from asa_adapter.measurement.word_classifier import bag_of_words

__all__ = ["bag_of_words"]
