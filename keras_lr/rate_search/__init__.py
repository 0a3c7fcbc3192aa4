"""From orders of magnitude to the best rate: a search in rounds, on Optuna."""

from keras_lr.rate_search.find import search
from keras_lr.rate_search.plan import Answer, Job, Outcome, Round, Score, Setting
from keras_lr.rate_search.result import Search
from keras_lr.rate_search.storage import SearchError

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
