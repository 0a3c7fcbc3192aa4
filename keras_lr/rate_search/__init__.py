"""From orders of magnitude to the best learning rate: a search in rounds, on Optuna."""

from keras_lr.rate_search.answer import Answer
from keras_lr.rate_search.jobs import Job, Outcome, Setting
from keras_lr.rate_search.result import Search
from keras_lr.rate_search.rounds import Round, Score
from keras_lr.rate_search.search_loop import search
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
