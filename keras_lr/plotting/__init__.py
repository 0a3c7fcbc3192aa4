"""Pictures: axes in, axes out. The functions that draw import matplotlib."""

from keras_lr.plotting.diagnosis import plot_diagnosis, save_diagnosis_plot
from keras_lr.plotting.range_test import plot_range_test, save_range_test_plot
from keras_lr.plotting.rate_search import (
    plot_search,
    plot_search_curves,
    plot_search_rates,
    save_search_plot,
)
from keras_lr.plotting.schedule_preview import plot_preview, save_preview_plot

__all__ = [
    "plot_diagnosis",
    "plot_preview",
    "plot_range_test",
    "plot_search",
    "plot_search_curves",
    "plot_search_rates",
    "save_diagnosis_plot",
    "save_preview_plot",
    "save_range_test_plot",
    "save_search_plot",
]
