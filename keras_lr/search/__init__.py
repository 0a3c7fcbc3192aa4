"""From orders of magnitude to the best rate: a search in rounds, on Optuna."""

from keras_lr.search.plan import Answer, Job, Outcome, Round, Score, Setting
from keras_lr.search.result import Search
from keras_lr.search.search import search
from keras_lr.search.storage import SearchError

__all__ = [
    "Answer",
    "Job",
    "Outcome",
    "Round",
    "Score",
    "Search",
    "SearchError",
    "Setting",
    "search",
]
